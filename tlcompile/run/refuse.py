"""Refuse what compiles and cannot be trained as it is written. Needs neither weights nor data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tlcompile.errors.ancestry import OtherClassesError, OwnBaseError
from tlcompile.errors.base import TLCompileError, raise_problems
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.graph import NotYetError
from tlcompile.errors.run import NothingTrainsError
from tlcompile.errors.training import WrongTaskError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.finished import FinishedRun, find_run, read_run
from tlcompile.recipe.schema import Recipe
from tlcompile.run.objective import refuse_unknown_monitor
from tlcompile.run.refuse_augment import augmentation_problems
from tlcompile.run.refuse_outputs import output_problems
from tlcompile.run.refuse_sharding import sharding_problems
from tlcompile.run.splits import known_names
from tlcompile.zoo.torchvision import DETECTION, SEGMENTATION, VIDEO


def refuse_untrainable(
    recipe: Recipe,
    model: CompiledModel,
    num_classes: int | None,
    *,
    swept: bool = False,
    widths: Mapping[str, int] | None = None,
) -> None:
    """Refuse a recipe that `train` could not follow.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled; it may live on meta.
        num_classes: Classes of the data; None: not known yet.
        swept: Whether it is a point of a sweep, where a line may be idle at some points.
        widths: Classes or numbers of each output, where there are several.

    Raises:
        Problems: All reasons at once.
    """
    refuse_unknown_monitor(recipe, num_classes)
    found = [*output_problems(recipe, model, num_classes, widths or {}), *_training(recipe, model)]
    if not swept:
        found += _idle(recipe, model)
    raise_problems(error.at(recipe.where(error.key)) for error in found)


def refuse_other_data(recipe: Recipe) -> None:
    """Refuse to train a base on images that it does not read, or for a task that it has not.

    Raises:
        NotYetError: It is one of torchvision's video or detection models.
        WrongTaskError: It is a segmentation model, and the task is another.
    """
    key = ("base", "model")
    for what, names in {"clips": VIDEO, "images with boxes": DETECTION}.items():
        if recipe.base.model in names:
            instead = "check, plan and compile_recipe take it; train a classification model"
            told = f"training '{recipe.base.model}', which wants {what},"
            raise NotYetError(what=told, instead=instead, key=key).at(recipe.where(key))
    if recipe.base.model in SEGMENTATION and recipe.task != "segmentation":
        error = WrongTaskError(model=str(recipe.base.model), task=str(recipe.task), key=key)
        raise error.at(recipe.where(key))


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
    if recipe.base.run is None or not keeps_classifier(model):
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


def keeps_classifier(model: CompiledModel) -> bool:
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
    yield from sharding_problems(recipe, model)


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
