"""Every layer type of the vocabulary, compiled and compared with plain torch, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.fields import Activation
from tlcompile.recipe.layers import AnyLayer, activation_call
from tlcompile.recipe.schema import Recipe

Expected = Callable[[Tensor, Tensor, Any], Tensor]  # (map, vector, weights of `new`) -> output

MAP, VECTOR = "body", "flat"
# (layer, inputs, expected): the input of `body` is (N, 3, 6, 6), of `flat` (N, 4).
ROWS: list[tuple[dict[str, Any], list[str], Expected]] = [
    ({"layer": "linear", "out": 7}, [VECTOR], lambda m, v, w: F.linear(v, w["weight"], w["bias"])),
    (
        {"layer": "conv2d", "out": 6, "kernel": 3, "stride": 2, "padding": 1, "groups": 2},
        [MAP],
        lambda m, v, w: F.conv2d(m, w["weight"], w["bias"], stride=2, padding=1, groups=2),
    ),
    ({"layer": "batch_norm"}, [MAP], lambda m, v, w: nn.BatchNorm2d(4).eval()(m)),
    ({"layer": "layer_norm"}, [VECTOR], lambda m, v, w: F.layer_norm(v, (4,))),
    ({"layer": "dropout", "p": 0.3}, [VECTOR], lambda m, v, w: v),
    ({"layer": "activation", "name": "gelu"}, [VECTOR], lambda m, v, w: F.gelu(v)),
    ({"layer": "max_pool", "kernel": 2}, [MAP], lambda m, v, w: F.max_pool2d(m, 2)),
    ({"layer": "avg_pool", "kernel": 3, "stride": 1}, [MAP], lambda m, v, w: F.avg_pool2d(m, 3, 1)),
    ({"layer": "global_pool"}, [MAP], lambda m, v, w: F.adaptive_avg_pool2d(m, 1)),
    ({"layer": "flatten"}, [MAP], lambda m, v, w: m.flatten(1)),
    ({"layer": "concat"}, [MAP, MAP], lambda m, v, w: torch.cat([m, m], 1)),
    ({"layer": "add"}, [VECTOR, VECTOR, VECTOR], lambda m, v, w: v + v + v),
    ({"layer": "subtract"}, [VECTOR, VECTOR], lambda m, v, w: v - v),
    ({"layer": "multiply"}, [VECTOR, VECTOR], lambda m, v, w: v * v),
    ({"layer": "average"}, [VECTOR, VECTOR], lambda m, v, w: (v + v) / 2),
    ({"layer": "maximum"}, [VECTOR, VECTOR], lambda m, v, w: torch.maximum(v, v)),
    ({"layer": "scale", "by": 2.5}, [VECTOR], lambda m, v, w: v * 2.5),
    ({"layer": "shift", "by": -1}, [VECTOR], lambda m, v, w: v - 1),
    ({"layer": "l2_normalise"}, [VECTOR], lambda m, v, w: F.normalize(v, dim=1)),
    ({"layer": "reshape", "shape": [2, -1]}, [VECTOR], lambda m, v, w: v.reshape(len(v), 2, 2)),
    ({"layer": "subset", "first": 1, "last": 2}, [VECTOR], lambda m, v, w: v[:, 1:3]),
]

WRONG = [
    ({"layer": "linear", "out": 7}, [MAP]),
    ({"layer": "conv2d", "out": 6, "groups": 3}, [MAP]),
    ({"layer": "conv2d", "out": 5, "groups": 2}, [MAP]),
    ({"layer": "conv2d", "out": 4, "stride": 2, "padding": "same"}, [MAP]),
    ({"layer": "max_pool", "kernel": 2, "padding": 2}, [MAP]),
    ({"layer": "layer_norm"}, [MAP]),
    ({"layer": "global_pool"}, [VECTOR]),
    ({"layer": "concat"}, [MAP]),
    ({"layer": "add"}, [MAP, VECTOR]),
    ({"layer": "subtract"}, [VECTOR, VECTOR, VECTOR]),
    ({"layer": "subset", "first": 2, "last": 4}, [VECTOR]),
]


class Base(nn.Module):
    """A map of four channels, its global mean, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flat(self.pool(self.body(x))))


def recipe(layer: dict[str, Any], inputs: list[str]) -> Recipe:
    return Recipe.model_validate(
        {
            "base": {"model": "base", "size": 6},
            "freeze": {"upto": ["none"]},
            "add": {
                "new": {**layer, "inputs": inputs},
                # An output that ends in an activation is refused, so a neutral vertex follows.
                "end": {"layer": "scale", "by": 1, "inputs": "new"},
            },
            "outputs": ["end"],
        }
    )


def words(row: Any) -> str:
    return str(row["layer"]) if isinstance(row, dict) else ""


def test_every_layer_type_has_a_row() -> None:
    union = get_args(AnyLayer)[0]
    types = {w for kind in get_args(union) for w in get_args(kind.model_fields["layer"].annotation)}
    assert len(types) == 21
    assert {row[0]["layer"] for row in ROWS} == types


@pytest.mark.parametrize(("layer", "inputs", "expected"), ROWS, ids=words)
def test_layer_is_torchs_own(layer: dict[str, Any], inputs: list[str], expected: Expected) -> None:
    model = compile_recipe(recipe(layer, inputs), base=Base()).eval()
    x = torch.randn(3, 3, 6, 6)
    with torch.no_grad():
        image = model.get_submodule("body")(x)
        vector = F.adaptive_avg_pool2d(image, 1).flatten(1)
        weights = {k.removeprefix("new."): p for k, p in model.named_parameters()}
        assert torch.equal(model(x), expected(image, vector, weights))


@pytest.mark.parametrize(("layer", "inputs"), WRONG, ids=words)
def test_layer_refuses_what_it_cannot_take(layer: dict[str, Any], inputs: list[str]) -> None:
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe(layer, inputs), base=Base())
    assert caught.value.slug in ("shape-mismatch", "wrong-inputs")


def test_every_activation_is_a_class_of_torch() -> None:
    names = get_args(Activation)
    assert len(names) == 18
    for name in names:
        call = activation_call(name)
        module = getattr(nn, call.name.removeprefix("nn."))(**call.kwargs)
        assert module(torch.randn(2, 3)).shape == (2, 3)
