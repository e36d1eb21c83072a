"""What a recipe mixes: the images of a batch, or the rows of their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tlcompile.features.augment import AugmentedSource
from tlcompile.features.mixed import MixedSource
from tlcompile.features.sources import LiveSource, Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.training.mixing import Mixing
from tlcompile.training.objective import Objective


def mixed_rows(recipe: Recipe, model: CompiledModel, objective: Objective) -> Mixing | None:
    """Return what the loop mixes: images where nothing is frozen, else the rows of features."""
    if not model.boundary:
        return _mixed_images(recipe, objective)
    alpha = recipe.features.augment.mixup
    return None if alpha is None else Mixing(alpha, None, _num_classes(objective))


def with_mixed_images(
    sources: Mapping[str, Source],
    recipe: Recipe,
    model: CompiledModel,
    objective: Objective,
    rank: int = 0,
) -> dict[str, Source]:
    """Return sources whose training images are mixed in front of a frozen part; else as they are.

    The frozen part runs in every epoch then: refuse_augment.py has refused to keep its features.
    """
    found, mix = dict(sources), _mixed_images(recipe, objective)
    train = found.get("train")
    if mix is None or not model.boundary:
        return found
    seed = recipe.fine_tune.seed
    if isinstance(train, LiveSource):
        found["train"] = MixedSource(train, mix, seed, rank)
    elif isinstance(train, AugmentedSource) and isinstance(train.source, LiveSource):
        found["train"] = replace(train, source=MixedSource(train.source, mix, seed, rank))
    return found


def _mixed_images(recipe: Recipe, objective: Objective) -> Mixing | None:
    mix = recipe.data.mix
    return None if mix is None else Mixing(mix.mixup, mix.cutmix, _num_classes(objective))


def _num_classes(objective: Objective) -> int | Mapping[str, int | None] | None:
    counts = {
        name: len(goal.classes) if goal.task == "classification" else None
        for name, goal in objective.goals.items()
    }
    return counts.get("", counts)  # the only output is called ""
