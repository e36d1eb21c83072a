"""Freeze points that are one under two names."""

from __future__ import annotations

from typing import Any

from tiny import make_recipe

from tlcompile.compiler import compile_recipe
from tlcompile.sweep.same import same_points

PHASES = {
    "phases": [{"name": "head", "freeze": "head", "epochs": 1}, {"name": "rest", "epochs": 1}]
}


def told(*freezes: str, **tune: Any) -> list[str]:
    recipes = [make_recipe(freeze=freeze, fine_tune=tune) for freeze in freezes]
    models = [compile_recipe(recipe.phases()[0], num_classes=3) for recipe in recipes]
    return same_points([(f"freeze={freeze}",) for freeze in freezes], recipes, models)


def test_a_region_and_a_stage_that_end_alike_are_one() -> None:
    assert told("block2", "stage1", "block1") == [
        "freeze=stage1 freezes what freeze=block2 freezes: drop one"
    ]


def test_points_whose_first_phase_is_the_same_are_two() -> None:
    """The second phase has the freeze point of the recipe."""
    assert told("block1", "block2", **PHASES) == []
