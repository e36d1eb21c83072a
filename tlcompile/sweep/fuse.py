"""Which points of a sweep train as one model: those that differ in numbers alone.

    plan = plan_fusion(recipes, models)          # one model a point, compiled; meta is enough
    for group in plan.groups: ...                # places of points that one FusedTrainer takes
    plan.alone                                   # why each of the others trains by itself

A group reads the same rows in the same order: all that decides rows, order and shapes is equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.optimizers import OneOptimizer
from tlcompile.recipe.schema import Recipe
from tlcompile.training.fused_optim import CHOICES, FUSABLE
from tlcompile.training.fused_suffix import misfit

# Keys of fine_tune that members of a group may each have of their own.
NUMBERS: Final = (
    "schedule", "epochs", "early_stop", "monitor", "label_smoothing", "layer_decay",
    "bias_lr_factor", "no_decay",
)  # fmt: skip
# Regularisers read or change the weights or gradients of one model.
_OF_ONE_MODEL: Final = (
    "l1", "l2", "l1_bias", "l2_bias", "clip", "renormalise", "constraints", "average",
)  # fmt: skip
OFF: Final = "sweep.fuse: off"
NO_OTHER: Final = "no other point differs from it in numbers alone"


@dataclass(frozen=True)
class Fusion:
    """What trains as one, and what does not.

    Attributes:
        groups: Places of points that train as one, two or more each, in order.
        alone: Why each of the other points trains by itself, by its place.
    """

    groups: tuple[tuple[int, ...], ...]
    alone: Mapping[int, str]

    def lines(self) -> Iterator[str]:
        """Yield what a plan says of it; points count from 1."""
        for group in self.groups:
            yield f"points {_listed(group)} train as one: they differ in numbers alone"
        reasons: dict[str, list[int]] = {}
        for place, reason in self.alone.items():
            reasons.setdefault(reason, []).append(place)
        for reason, places in reasons.items():
            word = "point" if len(places) == 1 else "points"
            yield f"{word} {_listed(places)} one by one: {reason}"


def plan_fusion(recipes: Sequence[Recipe], models: Sequence[CompiledModel]) -> Fusion:
    """Group the points of a sweep.

    Args:
        recipes: Of each point.
        models: Of each point's first phase, compiled; they may live on meta.
    """
    alone: dict[int, str] = {}
    alike: dict[str, list[int]] = {}
    for place, (recipe, model) in enumerate(zip(recipes, models, strict=True)):
        reason = why_alone(recipe, model)
        if reason:
            alone[place] = reason
        else:
            alike.setdefault(_key(recipe), []).append(place)
    alone |= {places[0]: NO_OTHER for places in alike.values() if len(places) == 1}
    groups = tuple(tuple(places) for places in alike.values() if len(places) > 1)
    return Fusion(groups, dict(sorted(alone.items())))


def why_alone(recipe: Recipe, model: CompiledModel) -> str:
    """Say why a point trains by itself, whatever others there are; else ''."""
    if recipe.sweep.fuse == "off":
        return OFF
    return next(_reasons(recipe), "") or misfit(model)


def _reasons(recipe: Recipe) -> Iterator[str]:
    tune, run = recipe.fine_tune, recipe.run
    if tune.phases is not None:
        yield "it has phases"
    if recipe.task not in ("classification", "binary"):
        yield "only classification with one output trains as one"
    for optimizer in _optimizers(recipe):
        if optimizer.name not in FUSABLE:
            yield f"optimizer {optimizer.name}: only {', '.join(FUSABLE)} train as one"
    default = type(tune)()
    for key in _OF_ONE_MODEL:
        if getattr(tune, key) != getattr(default, key):
            yield f"fine_tune.{key} is of one model"
    if recipe.data.mix is not None or recipe.features.augment != type(recipe.features.augment)():
        yield "batches are mixed or changed at random"
    if tune.accumulate > 1 or run.micro_batch is not None:
        yield "a step has several parts (fine_tune.accumulate, run.micro_batch)"
    if run.precision != "fp32" or run.compile or run.devices != 1:
        yield "run.precision, run.compile and run.devices are for one model"


def _optimizers(recipe: Recipe) -> Iterator[OneOptimizer]:
    """Yield every optimizer that a recipe names."""
    yield recipe.fine_tune.optimizer
    settings = (*recipe.add.values(), *recipe.fine_tune.groups.values())
    own = (getattr(one, "optimizer", None) for one in settings)
    yield from (optimizer for optimizer in own if optimizer is not None)


def _key(recipe: Recipe) -> str:
    """Return what points of a group have in common: all but the numbers."""
    data: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True, exclude={"name", "sweep"})
    tune = data["fine_tune"]
    for key in NUMBERS:
        del tune[key]
    optimizer = tune["optimizer"]
    tune["optimizer"] = {key: optimizer.get(key) for key in ("name", *CHOICES)}
    return json.dumps(data, sort_keys=True)


def _listed(places: Sequence[int]) -> str:
    """Word places as points, runs of them short: 1 to 4, 7."""
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(
        f"{one[0] + 1} to {one[-1] + 1}" if len(one) > 2 else ", ".join(str(p + 1) for p in one)
        for one in runs
    )
