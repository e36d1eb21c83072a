"""Tasks: what the outputs mean, which losses and metrics they have, and the section `task`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from tlcompile.recipe.fields import (
    DistinctNames,
    Name,
    NotNegative,
    Probability,
    Rate,
    RuleAt,
    Section,
    Text,
)

TaskName = Literal["classification", "binary", "multilabel", "regression", "segmentation"]
TASKS: Final[tuple[str, ...]] = get_args(TaskName)
LOGIT_TASKS: Final = (
    "classification",
    "binary",
    "multilabel",
    "segmentation",
)  # their losses apply softmax or sigmoid
IGNORED: Final = 255  # a pixel of a mask that counts for nothing

# Which value is better: True where the higher one is. The first behind the loss is the main one.
_RISES: Final[Mapping[str, Mapping[str, bool]]] = MappingProxyType(
    {
        "classification": {"loss": False, "accuracy": True, "f1": True, "top5": True},
        "binary": {"loss": False, "accuracy": True, "f1": True, "auroc": True},
        "multilabel": {"loss": False, "f1": True, "map": True},
        "regression": {"loss": False, "mae": False, "rmse": False, "r2": True},
        "segmentation": {"loss": False, "iou": True, "accuracy": True},
    }
)


def metrics_of(task: str, width: int | None = None) -> dict[str, bool]:
    """Return the metrics of a task, loss first, main one second: True where higher is better.

    Args:
        task: Of `TASKS`.
        width: Number of classes; with five or fewer, the true one is always among the top five.
            None: not known, so that any metric may be.
    """
    few = width is not None and width <= 5
    return {name: rises for name, rises in _RISES[task].items() if not (few and name == "top5")}


def main_metric(task: str) -> str:
    """Return the metric that is shown in each epoch: accuracy, f1, mae or iou."""
    return list(_RISES[task])[1]


def default_monitor(task: str) -> str:
    """Return the metric that names the best epoch where the recipe names none."""
    return "loss" if task == "regression" else main_metric(task)


class CrossEntropy(Section):
    """Cross-entropy: of a softmax over the classes, or of one sigmoid a label."""

    name: Literal["cross_entropy"]


class Focal(Section):
    """Focal loss: what is right already counts less (Lin et al. 2017, arXiv:1708.02002)."""

    name: Literal["focal"]
    gamma: NotNegative = Field(
        2.0, description="0: cross-entropy; higher: hard samples count more."
    )


class Mse(Section):
    """Mean squared error."""

    name: Literal["mse"]


class Mae(Section):
    """Mean absolute error."""

    name: Literal["mae"]


class Huber(Section):
    """Squared near zero, linear beyond delta."""

    name: Literal["huber"]
    delta: Rate = Field(1.0, description="Where it turns linear, in standard deviations.")


class SmoothL1(Section):
    """Huber's loss over beta."""

    name: Literal["smooth_l1"]
    beta: Rate = Field(1.0, description="Where it turns linear, in standard deviations.")


def as_named(value: Any) -> Any:
    """Let `focal` mean `{name: focal}`."""
    return {"name": value} if isinstance(value, str) else value


AnyLoss = Annotated[
    CrossEntropy | Focal | Mse | Mae | Huber | SmoothL1, Field(discriminator="name")
]
NamedLoss = Annotated[AnyLoss, BeforeValidator(as_named)]
ClassWeights = Literal["balanced"] | dict[Text, Rate]
OF_NUMBERS: Final = ("mse", "mae", "huber", "smooth_l1")

LOSS = "Of the task: cross_entropy or focal; of a regression mse, mae, huber or smooth_l1."
LABEL_SMOOTHING = "Share of the target spread over all classes."
CLASS_WEIGHTS = (
    "balanced: rare classes count more, all classes the same; or a factor of the loss of each class, "
    "by name. Of several labels: of a label's positive images."
)


class OutputTask(Section):
    """What one output is trained on."""

    task: TaskName = Field("classification", description="Decides loss, metrics and width.")
    target: DistinctNames | None = Field(
        None, description="Columns of data.csv; default: the output's name."
    )
    weight: Rate = Field(1.0, description="Factor of its loss in the sum.")
    loss: NamedLoss | None = Field(None, description=LOSS)
    label_smoothing: Probability = Field(0.0, description=LABEL_SMOOTHING)
    class_weights: ClassWeights | None = Field(None, description=CLASS_WEIGHTS)

    @model_validator(mode="after")
    def _no_line_without_effect(self) -> OutputTask:
        for key, rule in idle_lines(self):
            raise RuleAt(rule, key)
        return self


def _written(value: Any) -> str:
    return "by output" if isinstance(value, dict) else "one word"


Tasks = Annotated[
    Annotated[TaskName, Tag("one word")] | Annotated[dict[Name, OutputTask], Tag("by output")],
    Discriminator(_written),
]


def idle_lines(task: OutputTask) -> Iterator[tuple[str, str]]:
    """Yield each line about the loss that the task has no use for: its key, and the rule."""
    name, word = task.task, task.loss.name if task.loss else None
    of_numbers = name == "regression"
    if word is not None and of_numbers != (word in OF_NUMBERS):
        fits = "mse, mae, huber or smooth_l1" if of_numbers else "cross_entropy or focal"
        yield "loss", f"{word} is no loss of task: {name} | write {fits}"
    if task.label_smoothing and name != "classification":
        yield "label_smoothing", f"label_smoothing has no effect on task: {name} | drop it"
    if task.label_smoothing and word == "focal":
        yield (
            "label_smoothing",
            "label_smoothing has no effect on loss: focal | drop one of the two",
        )
    if task.class_weights is not None and of_numbers:
        yield "class_weights", f"class_weights has no effect on task: {name} | drop it"
    if task.class_weights == "balanced" and name == "segmentation":
        advice = "write a factor for each class: {road: 0.5, car: 4.0}"
        yield "class_weights", f"balanced counts images, and masks have pixels | {advice}"


OF_ONE_OUTPUT: Final = ("loss", "class_weights", "label_smoothing")  # keys of fine_tune


def misfits_of_several(
    tasks: Mapping[str, OutputTask],
    returned: Sequence[str] | None,
    of_one: Sequence[str],
    as_wide: Sequence[str],
) -> Iterator[tuple[str, ...]]:
    """Yield what does not go with several outputs: each time the key's parts, then the rule.

    Args:
        tasks: Of each output, by its vertex.
        returned: The vertices under `outputs`; None: as the run returns from which it starts.
        of_one: Keys of fine_tune that are given, and say something about one output alone.
        as_wide: Added layers with out: classes.
    """
    if len(tasks) < 2:
        yield "task", "names fewer than two outputs | write the word alone: task: classification"
    for name, one in tasks.items():
        if one.task == "segmentation":
            rule = "segmentation is no task beside others | write task: segmentation"
            yield "task", name, "task", rule
    if returned is not None and set(returned) != set(tasks):
        there = f"outputs names {', '.join(returned)}" if returned else "outputs is missing"
        advice = f"write outputs: [{', '.join(tasks)}]"
        yield "task", f"it is about {', '.join(tasks)}, and {there} | {advice}"
    for key in of_one:
        rule = f"{key} has no effect on several outputs | write it at each: task.<output>.{key}"
        yield "fine_tune", key, rule
    for name in as_wide:
        rule = "classes has no one meaning with several outputs | write the width: out: 3"
        yield "add", name, "out", rule
