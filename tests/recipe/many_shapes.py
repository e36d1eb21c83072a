"""A base with a vector, tokens, a map and a volume to read, and one new layer behind one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe


class ManyShapes(nn.Module):
    """A map `body`, the same values as `tokens` and as `volume`, their means as `vector`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)
        self.tokens = nn.Flatten(2)
        self.volume = nn.Unflatten(2, (2, 3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.vector = nn.Flatten()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        rest = self.tokens(body).sum() + self.volume(body).sum()
        return self.fc(self.vector(self.pool(body))) + rest


# What a vertex of the compiled model computes, by plain torch.
INPUTS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "body": lambda model, x: model.get_submodule("body")(x),
    "tokens": lambda model, x: model.get_submodule("body")(x).flatten(2),
    "volume": lambda model, x: model.get_submodule("body")(x).unflatten(2, (2, 3)),
    "vector": lambda model, x: F.adaptive_avg_pool2d(model.get_submodule("body")(x), 1).flatten(1),
    "eight": lambda model, x: model.get_submodule("eight")(INPUTS["tokens"](model, x)),
}


def recipe_of(
    layer: dict[str, Any],
    reads: list[str],
    add: dict[str, Any] | None = None,
    **sections: Any,
) -> Recipe:
    """Return a recipe with one new layer `new`; what it reads of the base is frozen."""
    eight = {"eight": {"layer": "linear", "out": 8, "inputs": "tokens"}}
    return Recipe.model_validate(
        {
            "base": {"model": "base", "size": 6},
            "freeze": {"upto": ["body"]},
            "add": {
                **(eight if "eight" in reads else {}),
                **(add or {}),
                "new": {**layer, "inputs": reads},
                # An output that ends in an activation is refused, so a neutral vertex follows.
                "end": {"layer": "scale", "by": 1, "inputs": "new"},
            },
            "outputs": ["end"],
            **sections,
        }
    )


def compiled(
    layer: dict[str, Any], reads: list[str], add: dict[str, Any] | None = None, **sections: Any
) -> CompiledModel:
    """Compile a recipe with one new layer."""
    return compile_recipe(recipe_of(layer, reads, add, **sections), base=ManyShapes())
