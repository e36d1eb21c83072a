"""Which parameters learn by which rule: a pure function of the recipe of a phase and its model."""

from __future__ import annotations

from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.training.groups import Group
from tlcompile.training.schedule import default_rate


def groups_of(recipe: Recipe, model: CompiledModel) -> tuple[Group, ...]:
    """Return the groups of a phase: each trainable parameter is in exactly one.

    Args:
        recipe: Of one phase, as `recipe.phases()` gives it.
        model: That recipe, compiled.
    """
    optimizer = recipe.fine_tune.optimizer
    names = tuple(name for name, _ in model.trainable())
    options = optimizer.model_dump(exclude={"name", "lr"})
    rate = base_rate(recipe, model)
    return (Group("all", names, optimizer.name, rate, options),) if names else ()


def base_rate(recipe: Recipe, model: CompiledModel) -> float:
    """Return the learning rate: the recipe's, else one that fits what trains."""
    if recipe.fine_tune.optimizer.lr is not None:
        return float(recipe.fine_tune.optimizer.lr)
    return default_rate(model)
