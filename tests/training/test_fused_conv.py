"""Convolution heads of members trained as one: what each gets alone, to the bit."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from graph.tiny import recipe_of
from torch import Tensor, nn
from training.fused_members import assert_as_alone, drawn, member, trained

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.features.sources import InMemory, KeptSource
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.fused import FusedTrainer
from tlcompile.training.fused_conv import MemberConv
from tlcompile.training.fused_suffix import misfit
from tlcompile.training.fused_ways import Ways

WIDTH, SIDE = 6, 7


class Net(nn.Module):
    """A frozen layer, and behind it what trains: layers in a row over maps."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.low, self.top = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(torch.tanh(self.low(x)))


def compiled(*layers: nn.Module) -> CompiledModel:
    torch.manual_seed(3)
    text = f"base: {{model: own}}\ninputs: {{x: {{shape: [3, {SIDE}, {SIDE}]}}}}\n"
    return compile_recipe(recipe_of(f"{text}freeze: tanh\nhead: keep\n"), base=Net(*layers))


def source(count: int, seed: int, layout: torch.memory_format = torch.contiguous_format) -> Any:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, WIDTH, SIDE, SIDE, generator=draw)
    labels = torch.randint(3, (count,), generator=draw)
    rows[torch.arange(count), labels] += 0.5  # something to learn
    return KeptSource(InMemory((rows.contiguous(memory_format=layout),)), TensorTargets(labels))


def classifier() -> tuple[nn.Module, ...]:
    """As squeezenet's; there ReLU stands behind the convolution, and pools a map of each class."""
    conv = nn.Conv2d(WIDTH, 3, 1)
    return (nn.Dropout(0.5), conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def deep() -> tuple[nn.Module, ...]:
    """Every kind of layer behind a convolution."""
    first = (nn.ReLU(), nn.Conv2d(WIDTH, 5, 3, padding=1), nn.GELU(), nn.Dropout(0.3))
    second = (nn.MaxPool2d(2), nn.Conv2d(5, 4, 1, bias=False), nn.SiLU(), nn.AvgPool2d(2))
    linear = (nn.Flatten(), nn.Linear(4, 7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, 3))
    return (*first, *second, *linear)


def strided() -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(WIDTH, 3, 3, stride=2, dilation=2, groups=3)
    return (conv, nn.AdaptiveMaxPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("layers", "kind"),
    [
        (classifier, "sgd"), (deep, "sgd"), (deep, "adamw"), (strided, "adamw"),
        pytest.param(classifier, "adamw", marks=pytest.mark.slow),
        pytest.param(strided, "sgd", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_group_of_convolution_heads_trains_as_each_alone(layers: Any, kind: str) -> None:
    model, draw = compiled(*layers()), random.Random(7)
    members = [drawn(draw, model, f"m{k}", kind, 3, rates=(0.003, 0.03)) for k in range(4)]
    assert_as_alone(model, members, source(37, 0), source(13, 1))


def test_channels_that_come_last_are_added_up_as_alone() -> None:
    """Rows of `features.precision: fast` lie so, and what comes out of a convolution does then."""
    model, last = compiled(*deep()), torch.channels_last
    members = [member(model, str(lr), lr=lr) for lr in (0.01, 0.05)]
    assert_as_alone(model, members, source(37, 0, last), source(13, 1, last))


@pytest.mark.parametrize(("batch", "width", "side"), [(8, 6, 7), (16, 64, 13)])
def test_gradients_are_those_of_each_alone(batch: int, width: int, side: int) -> None:
    """Below 16 samples torch computes convolutions of 1 x 1 by another library."""
    layer, members = nn.Conv2d(width, 10, 1), 5
    rows = torch.randn(batch, width, side, side)
    every = MemberConv(layer, members, Ways(), is_shared=True)
    grad = torch.randn(batch, 10, side, side)
    out = every(rows)
    out.backward(grad.repeat(members, 1, 1, 1))
    alone = layer(rows)
    alone.backward(grad)
    assert every.weight.grad is not None
    assert every.bias is not None
    assert every.bias.grad is not None
    for place in range(members):
        assert torch.equal(out.chunk(members)[place], alone)
        assert torch.equal(every.weight.grad[place], layer.weight.grad)
        assert torch.equal(every.bias.grad[place], layer.bias.grad)


def test_members_draw_the_mask_that_each_draws_alone() -> None:
    model = compiled(nn.Conv2d(WIDTH, 3, 1), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    members = [member(model, str(lr), lr=lr) for lr in (0.01, 0.05)]
    assert_as_alone(model, members, source(37, 0), None)
    without = compiled(nn.Conv2d(WIDTH, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    trainer = FusedTrainer(without, source(37, 0), None, [member(without, "0.01", lr=0.01)])
    trained(trainer)
    dropped = FusedTrainer(model, source(37, 0), None, [member(model, "0.01", lr=0.01)])
    trained(dropped)
    assert not all(
        map(torch.equal, trainer.weights("0.01").values(), dropped.weights("0.01").values())
    )


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (classifier(), ""),
        (deep(), ""),
        ((nn.Conv2d(WIDTH, 3, 1), nn.BatchNorm2d(3), nn.Flatten()), "a layer BatchNorm2d"),
        ((nn.Conv2d(WIDTH, 3, 1), nn.Softmax2d(), nn.Flatten()), "a layer Softmax2d"),
        ((nn.Conv2d(WIDTH, 3, 1), nn.Dropout2d(), nn.Flatten()), "a layer Dropout2d"),
        (
            (nn.Conv2d(WIDTH, 3, 3, padding=1, padding_mode="reflect"), nn.Flatten()),
            "pads with something else",
        ),
        ((nn.ConvTranspose2d(WIDTH, 3, 1), nn.Flatten(), nn.Linear(147, 3)), "weights beside"),
        ((nn.Dropout2d(), nn.Conv2d(WIDTH, 3, 1), nn.Flatten()), ""),
    ],
)
def test_what_is_no_chain_of_convolutions(layers: tuple[nn.Module, ...], reason: str) -> None:
    found = misfit(compiled(*layers))
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_layer_that_is_used_twice_does_not_train_as_one() -> None:
    """Its second use reads other numbers than what all members share."""
    twice = nn.GELU()
    layers = (twice, nn.Conv2d(WIDTH, 3, 1), twice, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert "a layer GELU twice" in misfit(compiled(*layers))
