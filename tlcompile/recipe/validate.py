"""From a recipe's tree, complete and with short forms spelled out, to a valid Recipe."""

from __future__ import annotations

from pydantic import ValidationError

from tlcompile.errors.base import raise_problems
from tlcompile.errors.recipe import RecipeError
from tlcompile.recipe.nodes import Entry, Mapping, Scalar
from tlcompile.recipe.problems import problems_of
from tlcompile.recipe.scalars import to_data
from tlcompile.recipe.schema import Recipe


def validated(root: Mapping, name: str) -> Recipe:
    """Return the recipe that a tree is; `name` is used where the tree has none.

    Raises:
        RecipeError: One problem, with its place.
        Problems: All problems at once.
    """
    if "name" not in root.items:
        named = Entry(root.span, Scalar(name, plain=False, span=root.span))
        root = Mapping({**root.items, "name": named}, root.span)
    problems: list[RecipeError] = []
    try:
        recipe = Recipe.model_validate(to_data(root))
    except ValidationError as cause:
        problems = list(problems_of(cause, root))
    raise_problems(problems)  # outside of `except`: Pydantic's own words would be shown first
    recipe._source = root
    return recipe
