"""Plan what the points of a sweep share, and run the passes: each image once, all rows kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from tlcompile.compiler import compile_together
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.features import STORE_ERRORS
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.sizes import parse_bytes
from tlcompile.run.device import choose_device
from tlcompile.run.features import SourceBuilder
from tlcompile.run.shared import Shared
from tlcompile.run.splits import Say
from tlcompile.run.sweep_needs import needs_of
from tlcompile.sweep.costs import Need
from tlcompile.sweep.plan import Pass, SweepPlan, plan_sweep
from tlcompile.sweep.rates import measure_rates


def share_rows(recipes: Mapping[int, Recipe], shared: Shared, say: Say) -> SweepPlan:
    """Compute the rows that several points will read, before the first one trains.

    A pass for one boundary alone is left to the first point that reads it. Where a pass fails, each
    point computes its own rows, and says what is wrong.

    Args:
        recipes: Of the points that have to run in this process, by number.
        shared: What they share.
        say: Takes lines for the user.
    """
    plan = plan_points(recipes, shared)
    for one in plan.passes:
        if len(one.tapped()) > 1:
            try:
                run_pass(one, recipes, shared, say)
            except Exception as error:  # of the data, or of one point, which will be a row
                say(f"features    not shared: {str(error).splitlines()[0]}")
    return plan


def plan_points(recipes: Mapping[int, Recipe], shared: Shared) -> SweepPlan:
    """Plan a sweep whose images and weights are there.

    Args:
        recipes: Of the points that have to run, by number.
        shared: What they share; it learns which rows shall not be kept.
    """
    needs: list[Need] = []
    for number, recipe in recipes.items():
        with contextlib.suppress(Exception):  # it will fail as a row
            needs += _needs(number, recipe, shared)
    shared.drop("surveyed")
    first = next(iter(recipes.values()))
    rates, budget = measure_rates(choose_device(first)), parse_bytes(first.run.cache_budget)
    plan = plan_sweep(needs, points=len(recipes), rates=rates, budget=budget)
    shared.decide(plan.not_kept())
    return plan


def _needs(number: int, recipe: Recipe, shared: Shared) -> list[Need]:
    opened, _ = shared.base(recipe, None)
    splits = shared.splits(recipe, opened, _silent)
    device = choose_device(recipe)
    models = shared.surveyed(recipe, opened, len(splits.classes))
    found = needs_of(number, recipe, models, splits.named(), opened.preprocessing, device, shared)
    return list(found)


def run_pass(one: Pass, recipes: Mapping[int, Recipe], shared: Shared, say: Say) -> None:
    """Compute the rows of one pass; where the store does not take them, points go on alone.

    Args:
        one: Of the plan.
        recipes: Of the points, by number.
        shared: What they share.
        say: Takes lines for the user.
    """
    left = one.tapped()
    while left:
        builder, served = _together(left, recipes, shared, say)
        first = recipes[left[0].point]
        splits = shared.splits(first, shared.base(first, None)[0], _silent)
        try:
            builder.store(splits.named())
        except STORE_ERRORS as error:  # what was stored stays
            say(f"features    {error.headline()}; each point computes its own")
        left = [need for need in left[1:] if need not in served]


def _together(
    needs: Sequence[Need], recipes: Mapping[int, Recipe], shared: Shared, say: Say
) -> tuple[SourceBuilder, list[Need]]:
    """Return what computes the rows of as many needs as one model serves, and these needs.

    The model has the edits of the first one's recipe. Edits behind a boundary do not change its rows,
    and so not its key; an edit in front of it does.
    """
    try:
        builder = _builder(needs, recipes, shared, say)
        keys = {about.key for about in builder.abouts()}
        served = [need for need in needs if keys.issuperset(need.keys)]
    except TLCompileError:  # the first recipe's edits take away what another one freezes
        served = [need for need in needs if _edits(need, recipes) == _edits(needs[0], recipes)]
    if len(served) < len(needs):
        served = served or list(needs[:1])
        builder = _builder(served, recipes, shared, say)
    return builder, served


def _edits(need: Need, recipes: Mapping[int, Recipe]) -> object:
    return recipes[need.point].model_dump(include={"remove", "resize", "add", "outputs", "head"})


def _builder(
    needs: Sequence[Need], recipes: Mapping[int, Recipe], shared: Shared, say: Say
) -> SourceBuilder:
    """Return what computes the rows of several needs in one pass."""
    phases = [recipes[need.point].phases()[need.phase] for need in needs]
    first = recipes[needs[0].point]
    opened, _ = shared.base(first, None)
    splits = shared.splits(first, opened, _silent)
    device = choose_device(first)
    return SourceBuilder(
        phases[0],
        opened.preprocessing,
        compile_together(phases, opened, len(splits.classes)).to(device),
        device,
        say,
        digests=shared.digests(first, splits),
        shared=shared,
        planned=needs[0].chunk_size,
    )


def _silent(_line: str) -> None:
    """Say nothing: each point says it again."""
