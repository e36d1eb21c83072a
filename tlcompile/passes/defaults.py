"""What new layers inherit from fine_tune where they say nothing themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tlcompile.errors.edits import NoEffectError
from tlcompile.recipe.layers.base import Layer, Parametric
from tlcompile.recipe.schema import Recipe

FIELDS = ("activation", "dropout", "init")


def with_defaults(recipe: Recipe, layer: Layer, *, returned: bool) -> Layer:
    """Fill in what fine_tune says of new layers."""
    filled = {
        field: getattr(recipe.fine_tune, field)
        for field in FIELDS
        if _inherits(layer, field, returned)
    }
    return layer.model_copy(update=filled) if filled else layer


def _inherits(layer: Layer, field: str, returned: bool) -> bool:
    """Tell whether a layer takes a default; what is returned ends in its weights."""
    if not isinstance(layer, Parametric) or getattr(layer, field) is not None:
        return False
    if field == "init":
        return True
    logits = returned or getattr(layer, "out", None) == "classes"
    return not logits and (field == "dropout" or layer.inherits_activation)


def unused_defaults(
    recipe: Recipe, outputs: Collection[str], *, head_auto: bool
) -> Iterator[NoEffectError]:
    """Yield the defaults that nothing inherits.

    Args:
        recipe: The recipe.
        outputs: Names of what is returned.
        head_auto: Whether the classifier is replaced, which takes fine_tune.init.
    """
    for field in FIELDS:
        value = getattr(recipe.fine_tune, field)
        if not value or value == "default":
            continue
        if field == "init" and (head_auto or recipe.resize):
            continue
        if not any(_inherits(layer, field, v in outputs) for v, layer in recipe.add.items()):
            yield NoEffectError(
                line=f"fine_tune.{field}",
                because=f"no new layer inherits it: each has its own {field}, is returned, or has none",
                instead=f"drop fine_tune.{field}",
                key=("fine_tune", field),
            )
