"""Compiled without edits is the original: outputs, random numbers, buffers, gradients, names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from graph.tiny import TINY, recipe, shake
from torch import Tensor, nn

from parity.plain import differences, evaluated, images, plain_model, side_of, stepped
from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel

NAMES = ["resnet18", "vgg11", "squeezenet1_0", "mobilenet_v3_small", "densenet121", "vit_b_16"]


def compiled_plain(model: nn.Module, side: int, **sections: Any) -> CompiledModel:
    plain = {"head": "keep", "freeze": "none", **sections}
    return compile_recipe(recipe(base={"model": "own", "size": side}, **plain), base=model)


def compare(model: nn.Module, x: Tensor) -> None:
    before = copy.deepcopy(model)
    compiled = compiled_plain(model, x.shape[-1])
    assert list(compiled.state_dict()) == list(model.state_dict())
    assert not differences(dict(model.state_dict()), dict(before.state_dict()))
    for one, other in zip(model.modules(), before.modules(), strict=True):
        assert vars(one).keys() == vars(other).keys()
        assert one.training == other.training
        assert getattr(one, "inplace", None) == getattr(other, "inplace", None)
    ours, theirs = evaluated(compiled, x), evaluated(model, x)
    assert len(ours) == len(theirs) > 0
    assert all(map(torch.equal, ours, theirs))
    ours_stepped, theirs_stepped = stepped(compiled, x), stepped(model, x)
    assert any(name.startswith("gradient") for name in theirs_stepped)
    assert not differences(ours_stepped, theirs_stepped)


LARGE = ("vgg11", "vit_b_16")
SIZED = [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES]


@pytest.mark.parametrize("name", SIZED)
def test_a_compiled_model_is_the_original(name: str) -> None:
    compare(plain_model(name), images(name))


@pytest.mark.parametrize("name", TINY)
def test_a_compiled_tiny_base_is_the_original(name: str) -> None:
    compare(shake(TINY[name]()), torch.randn(4, 3, 16, 16))


def test_the_comparison_can_fail() -> None:
    model, x = shake(TINY["chain"]()), torch.randn(4, 3, 16, 16)
    compiled = compiled_plain(model, 16)
    with torch.no_grad():
        compiled.get_parameter("fc.bias")[0] += 1e-6
    compared = differences(stepped(compiled, x), stepped(model, x))
    assert "output 0" in compared


@pytest.mark.parametrize("freeze", [{"upto": "none"}, {"upto": "none", "only": ["conv1"]}])
def test_auxiliary_heads_stay_without_edits(freeze: dict[str, Any]) -> None:
    model = plain_model("googlenet")
    compiled = compiled_plain(model, side_of("googlenet"), freeze=freeze)
    assert list(compiled.state_dict()) == list(model.state_dict())
    x = images("googlenet", 2)
    assert len(compiled.train()(x)) == 3
    assert isinstance(compiled.eval()(x), Tensor)


class InPlace(nn.Module):
    """Reads what an in-place operation has written, without the operation's result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        self.relu(x)
        y = x + 1
        y.mul_(3)
        torch.nn.functional.relu(y, True)
        return (x + y).mean((2, 3))


def test_in_place_operations_whose_result_nobody_reads() -> None:
    compare(InPlace(), torch.randn(2, 3, 16, 16))


class Aliases(nn.Module):
    """One module under two names, a tied parameter, a buffer outside the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.again = self.first
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.first.weight
        self.register_buffer("scale", torch.full((8,), 2.0), persistent=False)

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)[:, :8]
        return self.tied(self.again(self.first(x) * self.scale))


def test_shared_modules_and_buffers_outside_the_state_dict() -> None:
    model = Aliases()
    compare(model, torch.randn(2, 3, 16, 16))
    compiled = compiled_plain(model, 16)
    assert compiled.get_parameter("tied.weight") is compiled.get_parameter("first.weight")
    assert not dict(compiled.named_buffers())["scale"].is_meta
