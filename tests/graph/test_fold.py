"""A norm is folded only into the layer that feeds it alone, and that nothing else needs as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graph.tiny import TINY, graph_with_shapes
from tlcompile.graph.fold import Fold, find_folds

PAIR = Fold("conv", "bn")


def folds_upto(module: nn.Module, *boundary: str) -> tuple[Fold, ...]:
    model_graph = graph_with_shapes(module.eval())
    names = model_graph.names()
    return find_folds(model_graph, [names[name] for name in boundary])


class Pair(nn.Module):
    """conv - bn - relu, from which the cases differ in one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(3, 4, 3, padding=1)
        self.bn: nn.Module = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


def test_a_norm_behind_a_convolution_is_folded() -> None:
    assert folds_upto(TINY["chain"](), "relu") == (PAIR,)


def test_a_norm_that_is_the_boundary_is_folded() -> None:
    assert folds_upto(TINY["chain"](), "bn") == (PAIR,)


def test_every_pair_of_a_residual_block_is_folded() -> None:
    found = folds_upto(TINY["residual"](), "down")
    assert found == tuple(
        Fold(f"layer1.{block}.conv{n}", f"layer1.{block}.bn{n}") for block in (0, 1) for n in (1, 2)
    )


def test_what_stands_behind_the_boundary_is_not_asked() -> None:
    found = folds_upto(TINY["residual"](), "layer1.0.relu_1")
    assert {fold.layer for fold in found} == {"layer1.0.conv1", "layer1.0.conv2"}


def test_a_convolution_that_is_the_boundary_stays() -> None:
    assert folds_upto(TINY["chain"](), "conv") == ()
    assert folds_upto(TINY["chain"](), "conv", "relu") == ()


class ReadTwice(Pair):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.relu(self.bn(x) + x)


class LayerTwice(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)) + self.conv(x + 1))


class LayerUnderTwoNames(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.same = self.conv

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)) + self.same(x + 1))


class NormTwice(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.bn(self.conv(x))))


class NormBefore(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.bn(torch.cat([x, x[:, :1]], 1))[:, :3]))


class WeightRead(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)) * self.conv.weight.mean())


class FunctionBetween(Pair):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x).abs()))


@pytest.mark.parametrize(
    "kind",
    [
        ReadTwice,
        LayerTwice,
        LayerUnderTwoNames,
        NormTwice,
        NormBefore,
        WeightRead,
        FunctionBetween,
    ],
)
def test_a_norm_stays_where_its_layer_is_needed_as_it_is(kind: type[Pair]) -> None:
    assert folds_upto(kind(), "relu") == ()


class OwnConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).abs()


def with_hook() -> nn.Module:
    module = nn.Conv2d(3, 4, 3, padding=1)
    module.register_forward_hook(lambda _module, _inputs, output: output.abs())
    return module


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("conv", OwnConv(3, 4, 3, padding=1)),
        ("conv", with_hook()),
        ("conv", nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))),
        ("conv", nn.ConvTranspose2d(3, 4, 3, padding=1)),
        ("bn", nn.BatchNorm2d(4, track_running_stats=False)),
        ("bn", nn.InstanceNorm2d(4)),
        ("bn", nn.GroupNorm(2, 4)),
    ],
    ids=["subclass", "hook", "weight_norm", "transposed", "no_statistics", "instance", "group"],
)
def test_other_layers_and_norms_stay(name: str, other: nn.Module) -> None:
    module = Pair()
    setattr(module, name, other)
    assert folds_upto(module, "relu") == ()


class Dense(nn.Module):
    """A linear layer and a norm, over (N, features) or over (N, positions, features)."""

    def __init__(self, positions: bool) -> None:
        super().__init__()
        self.positions = positions
        self.fc = nn.Linear(16, 16)
        self.bn = nn.BatchNorm1d(16)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1) if self.positions else x.mean((1, 2))
        return self.relu(self.bn(self.fc(x)))


def test_a_norm_over_positions_is_not_one_over_features() -> None:
    assert folds_upto(Dense(positions=False), "relu") == (Fold("fc", "bn"),)
    assert folds_upto(Dense(positions=True), "relu") == ()
