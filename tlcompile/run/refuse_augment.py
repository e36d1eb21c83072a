"""Refuse random changes that have no effect or no meaning as the recipe is written."""

from __future__ import annotations

from collections.abc import Iterator

from tlcompile.data.views import EXACT_VIEWS, Views
from tlcompile.errors.augmentation import MixedFrozenError, UnknownMaskError, UnmixableError
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.data import ViewCountError
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.training import AugmentedFrozenError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.image_changes import Change, RandomHorizontalFlip, RandomVerticalFlip
from tlcompile.recipe.schema import Recipe

FEATURE_MIXUP = 0.2  # what is suggested where the recipe names no alpha for mixup


def augmentation_problems(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    """Yield what is wrong with `data.augment`, `data.mix` and `features.augment.mixup`.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled; it may live on meta.
    """
    yield from _views(recipe, model)
    augment = recipe.data.augment
    channels = next(iter(model.summary.sample_shapes.values()))[0]
    masks = any(task.task == "segmentation" for task in recipe.output_tasks().values())
    for split, changes in (("train", augment.on_train), ("val", augment.on_val)):
        for place, change in enumerate(changes):
            key = ("data", "augment", split, place)
            if channels == 1 and not change.changes_grey():
                yield NoEffectError(
                    line=f"data.augment.{split}: {change.word}",
                    because="the model reads grey images",
                    instead=f"drop {change.word}",
                    key=key,
                )
            if masks and change.mask == "unknown":
                yield UnknownMaskError(name=change.word, key=key)
    yield from _unmixable(recipe)
    yield from _mixed_features(recipe, model)


def _views(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    augment, features, key = recipe.data.augment, recipe.features, ("data", "augment", "train")
    changes = augment.on_train
    if not changes:
        return
    if features.views is not None:
        yield from _flips_by_chance(changes)
        try:
            Views(changes, 0, augment.seed, features.views)
        except ViewCountError as error:
            yield error
    elif model.boundary and features.cache != "off":
        names, drawn = _names(model), tuple(change.word for change in changes)
        yield AugmentedFrozenError(names=drawn, boundary=names, key=key)


def _flips_by_chance(changes: tuple[Change, ...]) -> Iterator[TLCompileError]:
    """With views of flips alone nothing is drawn, so that a chance changes nothing."""
    if frozenset(change.word for change in changes) not in EXACT_VIEWS:
        return
    for place, change in enumerate(changes):
        flip = isinstance(change, RandomHorizontalFlip | RandomVerticalFlip)
        if flip and change != type(change)():
            yield NoEffectError(
                line=f"{change.word}.p",
                because="each view of flips alone is another flip; nothing is drawn",
                instead=f"write {change.word} without p",
                key=("data", "augment", "train", place),
            )


def _unmixable(recipe: Recipe) -> Iterator[TLCompileError]:
    """Refuse to mix what the targets of a task cannot follow."""
    tasks = {task.task for task in recipe.output_tasks().values()}
    for section, key in (
        (recipe.data.mix, ("data", "mix")),
        (recipe.features.augment, ("features", "augment")),
    ):
        words = [word for word in ("mixup", "cutmix") if getattr(section, word, None) is not None]
        for word in words:
            if "segmentation" in tasks:
                yield UnmixableError(
                    name=word,
                    task="segmentation",
                    because="a target an image; masks are not mixed",
                    instead=f"drop {'.'.join(key)}.{word}",
                    key=(*key, word),
                )
            elif word == "cutmix" and "regression" in tasks:
                yield UnmixableError(
                    name=word,
                    task="regression",
                    because="classes, which have shares of an area; numbers have none",
                    instead="write mixup: 0.2, which blends the numbers too",
                    key=(*key, word),
                )


def _mixed_features(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    mix = recipe.data.mix
    if mix is None or not model.boundary or recipe.features.cache == "off":
        return
    words = tuple(word for word in ("mixup", "cutmix") if getattr(mix, word) is not None)
    yield MixedFrozenError(
        names=words, boundary=_names(model), alpha=mix.mixup or FEATURE_MIXUP, key=("data", "mix")
    )


def _names(model: CompiledModel) -> tuple[str, ...]:
    return tuple(row.vertex for row in model.boundary)
