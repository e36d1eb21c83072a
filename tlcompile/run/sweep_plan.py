"""`plan -m`: what a sweep would share, and what that saves, without weights and before it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tlcompile.compiler import PLACEHOLDER_CLASSES
from tlcompile.data.samples import Samples
from tlcompile.features.fingerprint import describe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.overrides import split_arguments
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.sizes import parse_bytes
from tlcompile.run.app import launch, open_session
from tlcompile.run.device import choose_device
from tlcompile.run.prove import compile_phases
from tlcompile.run.say import say, show_number, table_lines
from tlcompile.run.shared import Own, Shared, model_key
from tlcompile.run.splits import Splits, splits_at_hand
from tlcompile.run.sweep import prove_all
from tlcompile.run.sweep_needs import NamedTensors, needs_of
from tlcompile.store.store import About
from tlcompile.sweep.costs import Need
from tlcompile.sweep.fuse import Fusion, plan_fusion
from tlcompile.sweep.plan import Boundary, SweepPlan, plan_sweep
from tlcompile.sweep.rates import measure_rates
from tlcompile.sweep.same import same_points
from tlcompile.zoo.open import open_base

TRAIN, VAL = 1000, 250  # images, where they are not there to be counted
COLUMNS = ("boundary", "rows", "bytes", "kept", "read by", "saves")


def show_sweep(path: str, words: Sequence[str], *, as_json: bool) -> int:
    """Print the plan of a sweep."""
    overrides, for_hydra, _ = split_arguments(list(words))

    def planned(points: list[tuple[str, ...]], recipes: list[Recipe], **_how: Any) -> list[object]:
        plan, fusion, same, counted = plan_recipes(recipes, points)
        if as_json:
            alone = {str(place + 1): reason for place, reason in fusion.alone.items()}
            names = [" ".join(point) for point in points]
            found = {**plan.as_json(), "names": names, "alone": alone, "images_known": counted}
            found["same"] = same
            say(json.dumps(found, indent=1))
        else:
            say(sweep_text(plan, fusion, same, counted=counted))
        return []

    session = open_session(path, overrides, run_one=lambda _recipe: None, run_points=planned)
    launch(session, overrides, for_hydra, multirun=True)
    return 0


class _ByName(Own):
    """Names rows by where the values of tensors come from: a plan has no weights."""

    def describe(
        self,
        recipe: Recipe,  # noqa: ARG002
        phase: int,  # noqa: ARG002
        model: CompiledModel,
        **how: Any,
    ) -> tuple[About, ...]:
        return describe(model, tensors=NamedTensors(model), **how)


def plan_recipes(
    recipes: Sequence[Recipe], points: Sequence[tuple[str, ...]]
) -> tuple[SweepPlan, Fusion, list[str], bool]:
    """Plan a sweep on meta; tell which points are the same, and whether images could be counted.

    Raises:
        Problems: Points that cannot be compiled, or could not be trained.
    """
    shared = Shared()
    prove_all(recipes, shared)
    needs: list[Need] = []
    firsts: list[CompiledModel] = []
    known = True
    for number, recipe in enumerate(recipes):
        models, found = _models(recipe, shared), _splits(recipe, shared)
        known &= found is not None
        splits = found.named() if found else _stand_ins()
        opened = shared.once("unloaded", recipe.base.model_dump(), lambda: _opened(recipe))  # noqa: B023
        firsts.append(models[0])
        needs += needs_of(
            number, recipe, models, splits, opened.preprocessing, choose_device(recipe), _ByName()
        )
    first = recipes[0]
    rates, budget = measure_rates(choose_device(first)), parse_bytes(first.run.cache_budget)
    fusion = plan_fusion(recipes, firsts)
    plan = plan_sweep(needs, points=len(recipes), rates=rates, budget=budget, groups=fusion.groups)
    return plan, fusion, same_points(points, recipes, firsts), known


def _opened(recipe: Recipe) -> Any:
    return open_base(recipe, load=False)


def _models(recipe: Recipe, shared: Shared) -> tuple[CompiledModel, ...]:
    classes = shared.known_classes(recipe) or PLACEHOLDER_CLASSES
    proof = shared.once(
        "phases", (model_key(recipe), classes), lambda: compile_phases(recipe, classes)
    )
    return (proof.model, *proof.later)


def _splits(recipe: Recipe, shared: Shared) -> Splits | None:
    channels = next(iter(_models(recipe, shared)[0].summary.sample_shapes.values()))[0]
    key = (recipe.data.model_dump(mode="json"), recipe.fine_tune.seed, channels)
    return shared.once("at hand", key, lambda: splits_at_hand(recipe, channels))


def _stand_ins() -> dict[str, Samples]:
    """Return images that nobody reads, so many that a plan can be made."""

    def none(*_given: Any) -> Any:
        raise AssertionError("a plan reads no image")

    def some(count: int) -> Samples:
        return Samples(tuple(map(str, range(count))), (0,) * count, ("",), none, none)

    return {"train": some(TRAIN), "val": some(VAL)}


def sweep_text(plan: SweepPlan, fusion: Fusion, same: Sequence[str], *, counted: bool) -> str:
    """Return the plan as text."""
    lines = []
    if plan.boundaries:
        lines += [*table_lines(COLUMNS, [_cells(one) for one in plan.boundaries]), ""]
    lines += [f"{'points':<12}{plan.points}"]
    lines += [f"{'same':<12}{line}" for line in same]
    lines += [f"{'fused':<12}{line}" for line in fusion.lines()]
    lines += [f"{'passes':<12}{line}" for line in _passes(plan)]
    if not counted:
        lines.append(f"{'images':<12}not there to be counted: taken for {TRAIN:,} and {VAL:,}")
    reasons = dict.fromkeys(
        f"{', '.join(one.vertices)}: {one.why}" for one in plan.boundaries if one.why
    )
    lines += [f"{'live':<12}{reason}" for reason in reasons]
    return "\n".join([*lines, *(f"{'predicted':<12}{line}" for line in _predicted(plan))])


def _cells(one: Boundary) -> tuple[str, ...]:
    count = len(one.points)
    return (
        ", ".join(one.vertices),
        f"{one.rows:,}",
        show_number(one.num_bytes, "B"),
        one.tier if one.is_kept else "no",
        f"{count} point{'s' if count > 1 else ''}",
        f"{one.gain:,.1f} s" if one.is_kept else "",
    )


def _passes(plan: SweepPlan) -> list[str]:
    if not plan.passes:
        return ["none: no rows are kept"]
    return [
        f"{one.rows:,} images once for {len(one.points)} points, tapped at "
        f"{', '.join(one.vertices)}: {show_number(one.flops)}FLOP an image, {one.precision}"
        for one in plan.passes
    ]


def _predicted(plan: SweepPlan) -> list[str]:
    seconds = plan.seconds
    gain = seconds.naive / max(seconds.shared, 1e-9)
    return [
        f"CPU seconds of computing, at this machine's rates: {seconds.shared:,.1f} as one",
        f"{seconds.alone:,.1f} point by point, rows computed by the first that reads them",
        f"{seconds.naive:,.1f} point by point, everything anew in every epoch: {gain:,.1f} times",
    ]
