"""From a recipe and its classes to what is minimised and told; and back from a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tlcompile.bundle import Bundle
from tlcompile.data.samples import Samples, class_counts
from tlcompile.errors.data import UnknownClassError
from tlcompile.errors.training import UnknownMetricError
from tlcompile.recipe.finished import find_run, read_run
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.tasks import OutputTask, main_metric, metrics_of
from tlcompile.training.goal import Goal, Scale
from tlcompile.training.losses import build_loss
from tlcompile.training.objective import Objective


def objective_of(
    recipe: Recipe,
    classes: Sequence[str],
    train: Samples | None = None,
    device: torch.device | str = "cpu",
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Objective:
    """Return the losses and metrics of a recipe.

    Args:
        recipe: What the user asked for.
        classes: Of the data, in the order of the outputs; of a regression its targets.
        train: The training images, from which class weights and scales come; None: only judge.
        device: Where the losses are computed.
        outputs: As `outputs_record` gave it: names and scales of a finished run; None: those of the
            run that the recipe starts from, where they fit, else measured on `train`.

    Raises:
        UnknownClassError: class_weights names a class that the data have not.
    """
    known = outputs if outputs is not None else _of_base(recipe)
    goals = {}
    for name, task in recipe.output_tasks().items():
        names = _names(name, classes, train, known)
        if train is not None:
            refuse_unknown_weights(recipe, name, names)
        goals[name] = _goal(name, task, names, train, known.get(name), device)
    return Objective(goals, device=device)


def outputs_record(objective: Objective) -> dict[str, dict[str, Any]]:
    """Return what a run's record says of each output: task, names, and the scale of numbers."""
    found: dict[str, dict[str, Any]] = {}
    for name, goal in objective.goals.items():
        found[name] = {"task": goal.task, "classes": list(goal.classes), "scale": None}
        if goal.scale is not None:
            mean, std = goal.scale.mean.tolist(), goal.scale.std.tolist()
            found[name]["scale"] = {"mean": mean, "std": std}
    return found


def _of_base(recipe: Recipe) -> Mapping[str, Mapping[str, Any]]:
    if recipe.base.run is None:
        return {}
    found: Mapping[str, Mapping[str, Any]] = read_run(find_run(recipe.base.run)).record.get(
        "outputs", {}
    )
    return found


def _names(
    output: str,
    classes: Sequence[str],
    train: Samples | None,
    known: Mapping[str, Mapping[str, Any]],
) -> Sequence[str]:
    if not output:
        return classes
    if train is not None:
        return train.names[output]
    names: Sequence[str] = known[output]["classes"]
    return names


def _goal(
    output: str,
    task: OutputTask,
    names: Sequence[str],
    train: Samples | None,
    known: Mapping[str, Any] | None,
    device: torch.device | str,
) -> Goal:
    options = task.loss.model_dump() if task.loss else {}
    weights = _class_weights(output, task, names, train)
    return Goal(
        task=task.task,
        classes=tuple(names),
        loss=build_loss(
            task.task,
            label_smoothing=task.label_smoothing,
            weights=None if weights is None else weights.to(device),
            **options,
        ),
        plain=build_loss(task.task, **options),
        weight=task.weight,
        named=bool(output),
        scale=_scale(output, task, names, train, known, device),
    )


def _scale(
    output: str,
    task: OutputTask,
    names: Sequence[str],
    train: Samples | None,
    known: Mapping[str, Any] | None,
    device: torch.device | str,
) -> Scale | None:
    if task.task != "regression":
        return None
    if known is not None and known["scale"] and list(known["classes"]) == list(names):
        mean, std = known["scale"]["mean"], known["scale"]["std"]
        return Scale(torch.tensor(mean), torch.tensor(std)).to(device)
    if train is None:
        return None
    values = train.values[output] if isinstance(train.values, Mapping) else train.values
    assert isinstance(values, Tensor)
    return Scale.of(values).to(device)


def _class_weights(
    output: str, task: OutputTask, names: Sequence[str], train: Samples | None
) -> Tensor | None:
    """Return a factor for each class: balanced ones have a mean of 1 over the training images."""
    if task.class_weights is None or train is None:
        return None
    if isinstance(task.class_weights, dict):
        return torch.tensor([task.class_weights.get(name, 1.0) for name in names])
    counts = torch.tensor([class_counts(train, output)[name] for name in names]).float()
    if task.task == "multilabel":
        return (len(train) - counts).clamp(min=1) / counts.clamp(min=1)
    return counts.sum() / (counts.clamp(min=1) * len(names))


def refuse_unknown_weights(recipe: Recipe, output: str, names: Sequence[str]) -> None:
    """Refuse factors of classes that the data have not.

    Args:
        recipe: What the user asked for.
        output: Whose classes; "": the only one.
        names: Of its classes.

    Raises:
        UnknownClassError: class_weights names another.
    """
    weights = recipe.output_tasks()[output].class_weights
    unknown = tuple(n for n in weights if n not in names) if isinstance(weights, dict) else ()
    if unknown:
        key = ("task", output, "class_weights") if output else ("fine_tune", "class_weights")
        place, classes = ".".join(key), tuple(names)
        error = UnknownClassError(names=unknown, classes=classes, place=place, key=key)
        raise error.at(recipe.where(key))


def metrics_known(recipe: Recipe, width: int | None = None) -> dict[str, bool]:
    """Return every metric that a recipe logs, without its split: True where higher is better.

    Args:
        recipe: What the user asked for.
        width: Number of classes, where it is known.
    """
    tasks = recipe.output_tasks()
    if "" in tasks:
        return metrics_of(tasks[""].task, width)
    named = {f"{n}/{m}": up for n, one in tasks.items() for m, up in metrics_of(one.task).items()}
    return {"loss": False, **named}


def refuse_unknown_monitor(recipe: Recipe, width: int | None, *, judged: bool = True) -> None:
    """Refuse to watch what the task does not log.

    Args:
        recipe: What the user asked for.
        width: Number of classes, where it is known.
        judged: Whether there are validation images.

    Raises:
        UnknownMetricError: It holds what the task logs.
    """
    monitor = recipe.fine_tune.monitor
    if monitor is None:
        return
    trained = [f"train/{name}" for name in _trained(recipe)]
    known = [f"val/{name}" for name in metrics_known(recipe, width)] if judged else []
    if monitor in (*known, *trained) or (not judged and monitor in _with_val(trained)):
        return
    key = ("fine_tune", "monitor")
    error = UnknownMetricError(name=monitor, known=(*known, *trained), judged=judged, key=key)
    raise error.at(recipe.where(key))


def _trained(recipe: Recipe) -> list[str]:
    """Return the metrics of a training epoch: the loss, and the main one of each output."""
    tasks = recipe.output_tasks().items()
    return ["loss", *(f"{n}/{main_metric(one.task)}".lstrip("/") for n, one in tasks)]


def _with_val(trained: Sequence[str]) -> list[str]:
    return [name.replace("train/", "val/", 1) for name in trained]


def monitor_of(recipe: Recipe, objective: Objective, *, judged: bool) -> str:
    """Return the value that names the best epoch; without validation images, that of training.

    Args:
        recipe: What the user asked for.
        objective: Knows the task's own.
        judged: Whether there are validation images.

    Raises:
        UnknownMetricError: The task does not log what the recipe names.
    """
    refuse_unknown_monitor(recipe, _width(objective), judged=judged)
    monitor = recipe.fine_tune.monitor or f"val/{objective.monitor}"
    return monitor if judged else monitor.replace("val/", "train/", 1)


def _width(objective: Objective) -> int | None:
    return objective.goals[""].width if "" in objective.goals else None


def objective_of_bundle(bundle: Bundle, device: torch.device | str = "cpu") -> Objective:
    """Return what a finished run was judged by."""
    outputs = bundle.record.get("outputs", {})
    return objective_of(bundle.recipe, bundle.classes, None, device, outputs)
