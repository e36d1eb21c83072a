"""DL4J's tests of networks with branches, and of its featurizing helper. Case ids: docs/dl4j.md.

The helper's featurize is `prefix`, its fitFeaturized trains `suffix`: both are views of one model.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from graph.tiny import recipe_of
from torch import Tensor, nn

from parity.dl4j import Batch, chain, compiled, fit, labelled, moved, sgd, tensors, unequal
from parity.plain import differences
from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel


class TwoInputs(nn.Module):
    """in1 -> a -> b and in2 -> c, side by side -> d -> out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(2, 5)
        self.act = nn.LeakyReLU()
        self.d, self.out = nn.Linear(9, 4), nn.Linear(4, 3)

    def forward(self, in1: Tensor, in2: Tensor) -> Tensor:
        both = torch.cat([self.b(self.act(self.a(in1))), self.act(self.c(in2))], 1)
        return self.out(torch.relu(self.d(both)))


TWO = "base: {model: own}\ninputs: {in1: {shape: [2]}, in2: {shape: [2]}}\nhead: keep\n"


def test_c1_freezing_one_branch_leaves_the_other_and_keeps_activations() -> None:
    base = TwoInputs()
    model = compile_recipe(recipe_of(TWO + "freeze: c\n"), base=base)
    assert {name.split(".")[0] for name, _ in model.trainable()} == {"a", "b", "d", "out"}
    assert type(model.get_submodule("act")) is nn.LeakyReLU
    inputs = (torch.randn(6, 2), torch.randn(6, 2))
    batches = [(inputs, (torch.randint(3, (6,)),)) for _ in range(3)]
    base.c.requires_grad_(False)
    before = tensors(model)
    assert fit(model, batches, optimizer=torch.optim.Adam(model.parameters(), lr=2e-2)) == fit(
        base, batches, optimizer=torch.optim.Adam(base.parameters(), lr=2e-2)
    )
    assert not unequal(model, base)
    assert moved(model, before) == {"a", "b", "d", "out"}


class Merged(nn.Module):
    """Two inputs, a dense layer each, side by side, one output."""

    def __init__(self) -> None:
        super().__init__()
        self.denseCentre0 = nn.Linear(10, 9)
        self.denseRight0 = nn.Linear(2, 3)
        self.outRight = nn.Linear(12, 5)

    def forward(self, in_centre: Tensor, in_right: Tensor) -> Any:
        both = torch.cat([self.denseCentre0(in_centre), self.denseRight0(in_right)], 1)
        return self.outRight(both)


class BothOutputs(Merged):
    """The same; the left dense layer has an output of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.outCentre = nn.Linear(9, 4)

    def forward(self, in_centre: Tensor, in_right: Tensor) -> Any:
        centre = self.denseCentre0(in_centre)
        both = torch.cat([centre, self.denseRight0(in_right)], 1)
        return self.outRight(both), self.outCentre(centre)


MERGED = """
base: {model: own}
inputs: {in_centre: {shape: [10]}, in_right: {shape: [2]}}
head: keep
freeze: denseCentre0
"""


def numbers(*widths: int, steps: int = 5) -> list[Batch]:
    """Draw batches of two inputs and numbers as targets."""
    return [
        ((torch.randn(8, 10), torch.randn(8, 2)), tuple(torch.randn(8, w) for w in widths))
        for _ in range(steps)
    ]


class WithoutCentre(nn.Module):
    """What is left where the frozen layer's values are given."""

    def __init__(self, base: Merged) -> None:
        super().__init__()
        self.denseRight0 = copy.deepcopy(base.denseRight0)
        self.outRight = copy.deepcopy(base.outRight)

    def forward(self, centre: Tensor, in_right: Tensor) -> Tensor:
        return self.outRight(torch.cat([centre, self.denseRight0(in_right)], 1))


def test_c2_a_frozen_branch_into_a_merge_trains_as_given_features() -> None:
    base = Merged()
    model = compile_recipe(recipe_of(MERGED), base=base)
    by_hand, without = copy.deepcopy(base), WithoutCentre(base)
    by_hand.denseCentre0.requires_grad_(False)
    batches = numbers(5)
    with torch.no_grad():
        given = [((base.denseCentre0(a), b), y) for (a, b), y in batches]
    for index in range(5):
        one = slice(index, index + 1)
        scores = [
            fit(model, batches[one]), fit(by_hand, batches[one]), fit(without, given[one])
        ]  # fmt: skip
        assert scores[0] == scores[1] == scores[2]
        assert torch.equal(model.denseCentre0(batches[0][0][0]), given[0][0][0])
        assert not unequal(model, by_hand)
        assert not differences(tensors(model, "denseRight0", "outRight"), tensors(without))


def test_c3_a_frozen_layer_with_an_output_of_its_own() -> None:
    base = BothOutputs()
    model = compile_recipe(recipe_of(MERGED), base=base)
    base.denseCentre0.requires_grad_(False)
    before, batches = tensors(model), numbers(5, 4)
    assert fit(model, batches) == fit(base, batches)
    assert not unequal(model, base)
    assert moved(model, before) == {"denseRight0", "outRight", "outCentre"}


ADDED = """
base: {model: own}
inputs: {in_centre: {shape: [10]}, in_right: {shape: [2]}}
freeze: none
add: {outCentre: {layer: linear, out: 3, inputs: denseCentre0}}
outputs: [outRight, outCentre]
"""


def test_c4_a_second_output_is_added() -> None:
    model = compile_recipe(recipe_of(ADDED), base=Merged())

    class Plain(BothOutputs):
        def __init__(self) -> None:
            super().__init__()
            self.outCentre = nn.Linear(9, 3)

    plain = Plain()
    plain.load_state_dict(model.state_dict())
    assert list(model(torch.randn(2, 10), torch.randn(2, 2))) == ["outRight", "outCentre"]
    batches = numbers(5, 3)
    assert fit(model, batches) == fit(plain, batches)
    assert not unequal(model, plain)
    shapes = {row.name: row.shape for row in model.summary.vertices}
    assert (shapes["outRight"], shapes["outCentre"]) == ("(N, 5)", "(N, 3)")


class ThreeOutputs(nn.Module):
    """DL4J's graph for its helper: a chain in the centre with branches to the left and right."""

    def __init__(self) -> None:
        super().__init__()
        self.denseCentre0, self.denseCentre1 = nn.Linear(10, 9), nn.Linear(9, 8)
        self.denseCentre2, self.denseCentre3 = nn.Linear(8, 7), nn.Linear(7, 7)
        self.outCentre = nn.Linear(7, 4)
        self.denseLeft0, self.outLeft = nn.Linear(4, 2), nn.Linear(2, 6)
        self.denseRight, self.denseRight0 = nn.Linear(7, 7), nn.Linear(2, 3)
        self.denseRight1, self.outRight = nn.Linear(10, 5), nn.Linear(5, 5)

    def forward(self, in_centre: Tensor, in_right: Tensor) -> Any:
        centre1 = self.denseCentre1(self.denseCentre0(in_centre))
        centre2 = self.denseCentre2(centre1)
        centre = self.outCentre(self.denseCentre3(centre2))
        left = self.outLeft(self.denseLeft0(centre1[:, :4]))
        both = torch.cat([self.denseRight(centre2), self.denseRight0(in_right)], 1)
        return centre, self.outRight(self.denseRight1(both)), left


THREE = """
base: {model: own}
inputs: {in_centre: {shape: [10]}, in_right: {shape: [2]}}
head: keep
freeze: denseCentre2
"""


def three() -> tuple[ThreeOutputs, CompiledModel]:
    base = ThreeOutputs()
    return base, compile_recipe(recipe_of(THREE), base=base)


def test_d1_the_trainable_part_of_a_graph_with_two_boundaries_and_an_input() -> None:
    base, model = three()
    assert {b.vertex: b.shape for b in model.boundary} == {
        "in_right": (2,),
        "getitem": (4,),  # half of denseCentre1; nothing reads the rest
        "denseCentre2": (7,),
    }
    trains = {name.split(".")[0] for name, _ in model.trainable()}
    assert trains == {name for name, _ in base.named_children()} - {
        "denseCentre0", "denseCentre1", "denseCentre2"
    }  # fmt: skip
    inputs = (torch.randn(4, 10), torch.randn(4, 2))
    halves, whole = model.suffix(*model.prefix(*inputs)), base(*inputs)
    assert len(halves) == len(whole) == 3
    assert all(map(torch.equal, halves, whole))


def test_d2_training_on_features_is_training_the_frozen_whole() -> None:
    """Every tensor is compared; DL4J had to leave denseRight0 out."""
    base, model = three()
    on_features = copy.deepcopy(model)
    for name in ("denseCentre0", "denseCentre1", "denseCentre2"):
        base.get_submodule(name).requires_grad_(False)
    batches = numbers(4, 5, 6)
    features = [(on_features.prefix(*inputs), targets) for inputs, targets in batches]
    scores = fit(base, batches)
    assert fit(model, batches) == scores
    assert fit(on_features, features, forward=on_features.suffix) == scores
    assert not unequal(model, base)
    assert not unequal(on_features, base)


def test_d3_a_dense_chain_on_features_whole_and_as_a_tail_by_hand() -> None:
    base = chain(4, 3, 2, 3, 3, between=nn.Identity)
    model = compiled("head: keep\nfreeze: layer1\n", base)
    on_features = copy.deepcopy(model)
    tail = copy.deepcopy(base[3:])
    batches = labelled(10, 4, steps=5)
    features = [(model.prefix(*inputs), targets) for inputs, targets in batches]
    for (inputs, labels), (computed, kept) in zip(batches, features, strict=True):
        assert torch.equal(computed[0], base[:3](*inputs))
        assert kept is labels
    scores = fit(model, batches)
    assert fit(on_features, features, forward=on_features.suffix) == scores
    assert fit(tail, features) == scores
    assert not unequal(on_features, model)
    assert not differences(
        {n: t for n, t in tensors(model).items() if n[:6] in ("layer2", "layer3")}, tensors(tail)
    )


@pytest.mark.parametrize("lr", [0.0, 0.1])
def test_the_comparison_of_training_can_fail(lr: float) -> None:
    base = chain(4, 3, 3)
    model, batches = compiled("head: keep\nfreeze: none\n", base), labelled(10, 4)
    fit(model, batches, optimizer=sgd(model, lr))
    assert bool(unequal(model, base)) == (lr > 0)
