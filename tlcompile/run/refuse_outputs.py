"""Refuse outputs that the losses of the task cannot read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import OutputActivationError, WrongWidthError
from tlcompile.errors.graph import NotYetError
from tlcompile.errors.training import OtherOutputsError
from tlcompile.model.compiled import CompiledModel, VertexRow
from tlcompile.passes.plan import num_logits
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.tasks import LOGIT_TASKS

# Behind them nothing is a logit. A relu is not among them: torchvision's SqueezeNet ends in one.
_CHANCES = ("softmax", "log_softmax", "logsoftmax", "sigmoid", "logsigmoid")


def output_problems(
    recipe: Recipe, model: CompiledModel, num_classes: int | None, widths: Mapping[str, int]
) -> Iterator[TLCompileError]:
    """Yield every reason why the outputs of a model cannot be compared with its data.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled; it may live on meta.
        num_classes: Classes of the data; None: not known yet.
        widths: Of each output, where there are several, as far as they are known.
    """
    rows = {row.name: row for row in model.summary.vertices}
    outputs = [rows[name] for name in model.summary.outputs]
    if not isinstance(recipe.task, str):
        yield from _several(recipe, outputs, widths)
        return
    maps = recipe.task == "segmentation"  # its second output is that of the auxiliary head
    if (len(outputs) != 1 and not maps) or not all(row.shape.startswith("(") for row in outputs):
        yield NotYetError(
            what="training a model that returns more than one tensor for one task",
            instead="name one vertex under outputs, or write head: auto",
            key=("outputs",),
        )
        return
    for row in outputs:
        yield from _activation(recipe, row, recipe.task)
        if num_classes is None:
            continue
        wanted = f"(N, {num_logits(recipe, num_classes)})"
        if maps:
            *_, height, width = next(iter(model.summary.sample_shapes.values()))
            wanted = f"(N, {num_classes}, {height}, {width})"
        yield from _width(recipe, row, recipe.task, wanted)


def _several(
    recipe: Recipe, outputs: list[VertexRow], widths: Mapping[str, int]
) -> Iterator[TLCompileError]:
    tasks, found = recipe.output_tasks(), tuple(row.name for row in outputs)
    if set(found) != set(tasks):
        yield OtherOutputsError(wanted=tuple(tasks), found=found, key=("task",))
        return
    for row in outputs:
        task = tasks[row.name].task
        yield from _activation(recipe, row, task)
        width = 1 if task == "binary" else widths.get(row.name)
        if width is not None:
            yield from _width(recipe, row, task, f"(N, {width})", width)


def _width(
    recipe: Recipe, row: VertexRow, task: str, wanted: str, wide: int | None = None
) -> Iterator[TLCompileError]:
    if row.shape != wanted:
        key = ("add", row.name) if row.name in recipe.add else ("head",)
        yield WrongWidthError(
            name=row.name, found=row.shape, wanted=wanted, task=task, wide=wide, key=key
        )


def _activation(recipe: Recipe, row: VertexRow, task: str) -> Iterator[TLCompileError]:
    """Refuse chances where the loss wants logits, which the base itself computes."""
    if task in LOGIT_TASKS and row.kind.lower() in _CHANCES and row.name not in recipe.add:
        yield OutputActivationError(
            name=row.name,
            activation=row.kind.lower(),
            task=task,
            before=row.reads[0] if row.reads else "",
            added=False,
            key=("outputs",) if recipe.outputs else ("head",),
        )
