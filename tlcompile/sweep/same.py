"""Which points of a sweep are one and the same: a region and its last vertex freeze the same."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe


def same_points(
    points: Sequence[tuple[str, ...]],
    recipes: Sequence[Recipe],
    models: Sequence[CompiledModel],
) -> list[str]:
    """Tell which points freeze the same under another name; nothing is learned from the second.

    Args:
        points: What the sweep chose, `key=value`.
        recipes: Of the points.
        models: Of each point's first phase, compiled; they may live on meta.

    Returns:
        A line for each pair of names.
    """
    first: dict[str, tuple[str, ...]] = {}
    lines = []
    for texts, recipe, model in zip(points, recipes, models, strict=True):
        before = first.setdefault(_key(recipe, model), texts)
        if before != texts:
            one, other = _other(texts, before), _other(before, texts)
            lines.append(f"{one} freezes what {other} freezes: drop one")
    return list(dict.fromkeys(lines))


def _other(texts: tuple[str, ...], than: tuple[str, ...]) -> str:
    return " ".join(text for text in texts if text not in than)


def _key(recipe: Recipe, model: CompiledModel) -> str:
    frozen = [row.name for row in model.summary.vertices if row.frozen]
    # Of phases the first alone is known here, and a later one may inherit the name.
    names = {"freeze"} if recipe.fine_tune.phases is None else set()
    return json.dumps([recipe.model_dump(mode="json", exclude=names), frozen], sort_keys=True)
