"""Refuse what compiles and cannot be trained as it is written. Needs neither weights nor data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tlcompile.errors.ancestry import OtherClassesError, OwnBaseError
from tlcompile.errors.base import TLCompileError, raise_problems
from tlcompile.errors.edits import NoEffectError, WrongWidthError
from tlcompile.errors.graph import NotYetError
from tlcompile.errors.run import NothingTrainsError
from tlcompile.model.compiled import CompiledModel
from tlcompile.passes.plan import num_logits
from tlcompile.recipe.finished import FinishedRun, find_run, read_run
from tlcompile.recipe.schema import Recipe
from tlcompile.run.refuse_augment import augmentation_problems
from tlcompile.run.splits import known_names
from tlcompile.zoo.torchvision import DETECTION, SEGMENTATION, VIDEO


def refuse_untrainable(
    recipe: Recipe, model: CompiledModel, num_classes: int | None, *, swept: bool = False
) -> None:
    """Refuse a recipe that `train` could not follow.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled; it may live on meta.
        num_classes: Classes of the data; None: not known yet.
        swept: Whether it is a point of a sweep, where a line may be idle at some points.

    Raises:
        Problems: All reasons at once.
    """
    found = [*_outputs(recipe, model, num_classes), *_training(recipe, model)]
    if not swept:
        found += _idle(recipe, model)
    raise_problems(error.at(recipe.where(error.key)) for error in found)


def refuse_other_data(recipe: Recipe) -> None:
    """Refuse to train a base on images with classes that wants clips, masks or boxes.

    Raises:
        NotYetError: It is one of torchvision's video, segmentation or detection models.
    """
    wants = {"clips": VIDEO, "images with masks": SEGMENTATION, "images with boxes": DETECTION}
    for what, names in wants.items():
        if recipe.base.model in names:
            key = ("base", "model")
            instead = "check, plan and compile_recipe take it; train a classification model"
            told = f"training '{recipe.base.model}', which wants {what},"
            raise NotYetError(what=told, instead=instead, key=key).at(recipe.where(key))


def refuse_other_classes(
    recipe: Recipe, model: CompiledModel, classes: tuple[str, ...] | None = None
) -> None:
    """Refuse data whose classes are not those of the classifier that is kept from a run.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled; it may live on meta.
        classes: Of the data, in the order of the outputs; None: as far as the recipe tells.

    Raises:
        OtherClassesError: Other names, or the same in another order.
    """
    if recipe.base.run is None or not _keeps_classifier(model):
        return
    run = read_run(find_run(recipe.base.run))
    found = classes or known_names(recipe, run.classes)
    if found is None or found == run.classes:
        return
    keys = ("classes", "csv", "folder", "dataset", "huggingface")
    named = [name for name in keys if getattr(recipe.data, name)]
    key = ("data", named[0])
    error = OtherClassesError(run=str(run.folder), wanted=run.classes, found=found, key=key)
    raise error.at(recipe.where(key))


def _keeps_classifier(model: CompiledModel) -> bool:
    """Tell whether the last vertex with parameters is the base's own."""
    owners = [row for row in model.summary.vertices if row.num_parameters]
    return bool(owners) and owners[-1].origin == "kept"


def refuse_own_base(folder: Path, run: FinishedRun | None) -> None:
    """Refuse a folder that holds the run that the recipe starts from.

    Raises:
        OwnBaseError: The new run would be written over its base.
    """
    if run is not None and folder.resolve() in (run.folder.resolve(), run.bundle.resolve()):
        raise OwnBaseError(path=folder)


def _training(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    if not any(True for _ in model.trainable()):
        frozen = sum(p.numel() for p in model.parameters())
        yield NothingTrainsError(frozen=frozen, key=("freeze", "upto"))
    if len(model.summary.sample_shapes) > 1:
        yield NotYetError(
            what="training a model with more than one input",
            instead="take the model from compile_recipe, and train it in your own loop",
            key=("inputs",),
        )
    yield from augmentation_problems(recipe, model)


def _outputs(
    recipe: Recipe, model: CompiledModel, num_classes: int | None
) -> Iterator[TLCompileError]:
    shapes = {row.name: row.shape for row in model.summary.vertices}
    outputs = [(name, shapes[name]) for name in model.summary.outputs]
    if len(outputs) != 1 or not outputs[0][1].startswith("("):
        yield NotYetError(
            what="training a model that returns more than one tensor",
            instead="name one vertex under outputs, or write head: auto",
            key=("outputs",),
        )
        return
    name, shape = outputs[0]
    if num_classes is None or shape == f"(N, {num_logits(recipe, num_classes)})":
        return
    yield WrongWidthError(
        name=name,
        found=shape,
        wanted=f"(N, {num_logits(recipe, num_classes)})",
        task=recipe.task,
        key=("add", name) if name in recipe.add else ("head",),
    )


def _idle(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    """Name lines about features where nothing is frozen that could be computed once."""
    if model.boundary:
        return
    why = model.not_cacheable or "nothing is frozen, so no features are computed"
    for key in recipe.features.only_with_a_frozen_part():
        yield NoEffectError(
            line=f"features.{key}",
            because=why,
            instead=f"drop features.{key}, or freeze something",
            key=("features", key),
        )
