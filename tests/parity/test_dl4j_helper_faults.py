"""Faults of DL4J's frozen layers and of its helper, each named after the fault: docs/dl4j.md."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from graph.tiny import TINY, recipe_of, shake
from torch import Tensor, nn

from parity.dl4j import chain, compiled, fit, labelled, moved, scored, sgd, tensors, unequal
from parity.plain import differences
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.run.feature_trainer import FeatureTrainer
from tlcompile.run.refuse import refuse_untrainable


class Beside(nn.Module):
    """A frozen branch beside an LSTM that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.dense = nn.Linear(4, 5)
        self.out = nn.Linear(10, 3)

    def forward(self, input: Tensor) -> Tensor:
        new = self.lstm(input)[0][:, -1]
        return self.out(torch.cat([new, self.dense(input.mean(1))], 1))


@pytest.mark.parametrize("freeze", ["dense", "{only: dense}"])
def test_backward_is_aborted_at_the_first_frozen_vertex(freeze: str) -> None:
    """#4964: the branch beside a frozen one gets its gradients, equal to plain PyTorch's."""
    base = Beside()
    model = compiled(f"head: keep\nfreeze: {freeze}\n", base, shape=(6, 4))
    before = tensors(model)
    base.dense.requires_grad_(False)
    batches = labelled(8, 6, 4, steps=3)
    assert fit(model, batches) == fit(base, batches)
    assert not unequal(model, base)
    assert moved(model, before) == {"lstm", "out"}


def test_frozen_state_is_lost_on_save() -> None:
    """#3650; bundles: test_dl4j_saving.py."""
    model = compiled("freeze: act1\n", chain(4, 5, 3, 3), classes=2)
    again = pickle.loads(pickle.dumps(model))
    before = tensors(again)
    fit(again, labelled(6, 4, classes=2, steps=2), optimizer=sgd(again, weight_decay=0.1))
    assert moved(again, before) == {"layer2"}


def test_penalties_leak_into_frozen_layers() -> None:
    """#4250: weight decay and momentum over all parameters leave frozen ones as they are."""
    model = compiled("freeze: act1\n", chain(4, 5, 3, 3), classes=2)
    before = tensors(model, "layer0", "layer1")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    fit(model, labelled(6, 4, classes=2, steps=5), optimizer=optimizer)
    assert not differences(tensors(model, "layer0", "layer1"), before)


def test_output_layers_cannot_be_frozen() -> None:
    """#4261: several heads of which one stands still, gradients pass through."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 3)

        def forward(self, input: Tensor) -> Any:
            hidden = torch.sigmoid(self.body(input))
            return self.one(hidden), self.two(hidden)

    base = Heads()
    model = compiled("head: keep\nfreeze: {only: one}\n", base)
    base.one.requires_grad_(False)
    before = tensors(model)
    batches = [((torch.randn(6, 4),), (torch.randn(6, 2), torch.randn(6, 3))) for _ in range(3)]
    assert fit(model, batches) == fit(base, batches)
    assert not unequal(model, base)
    assert moved(model, before) == {"body", "two"}
    whole = compiled("head: keep\nfreeze: {upto: [one]}\n", base)
    assert {name.split(".")[0] for name, _ in whole.trainable()} == {"two"}


def test_frozen_layers_hide_their_type() -> None:
    """#3327, #4313: a frozen convolution is a convolution; hooks see it while the prefix runs."""
    model = compile_recipe(
        recipe_of("base: {model: own, size: 16}\nfreeze: relu\n"),
        base=TINY["chain"](),
        num_classes=2,
    )
    conv = model.get_submodule("conv")
    assert type(conv) is nn.Conv2d
    seen: list[torch.Size] = []
    conv.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    model.prefix(torch.randn(2, 3, 16, 16))
    assert seen == [(2, 8, 8, 8)]


def test_the_trainable_part_is_computed_to_get_features() -> None:
    model = compiled("freeze: act1\n", chain(4, 5, 3, 3), classes=2)
    calls: list[str] = []
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    boundary = model.prefix(torch.randn(2, 4))
    assert calls == ["layer0", "act0", "layer1", "act1"]
    FeatureTrainer(model, batch_size=2).extract(torch.randn(2, 4))
    assert set(calls) == {"layer0", "act0", "layer1", "act1"}
    calls.clear()
    model.suffix(*boundary)
    assert calls == ["layer2"]


class Fan(nn.Module):
    """Three frozen layers, given names, that the trainable part reads."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        for index, name in enumerate(names):
            self.add_module(name, nn.Linear(4, 2 + index))
        self.heads = nn.ModuleList(nn.Linear(2 + index, 3) for index in range(3))

    def forward(self, input: Tensor) -> Tensor:
        read = [self.get_submodule(name)(input) for name in self.names]
        return self.heads[2](read[2]) + self.heads[0](read[0]) + self.heads[1](read[1])


ORDERS = list(itertools.permutations(["zeta", "alpha", "m10"]))


@pytest.mark.parametrize("names", ORDERS, ids="-".join)
def test_the_boundary_has_the_order_of_a_hash(names: tuple[str, ...]) -> None:
    """The boundary comes in the order of computation whatever the names, so the halves agree."""
    assert len(ORDERS) == 6
    base = Fan(names)
    model = compiled(f"head: keep\nfreeze: {{upto: [{', '.join(sorted(names))}]}}\n", base)
    assert [b.vertex for b in model.boundary] == list(names)
    assert [b.shape for b in model.boundary] == [(2,), (3,), (4,)]
    x = torch.randn(5, 4)
    assert torch.equal(model.suffix(*model.prefix(x)), base(x))


@pytest.mark.parametrize("names", list(itertools.permutations(["b", "a", "c"])), ids="".join)
def test_inputs_have_the_order_of_a_hash(names: tuple[str, ...]) -> None:
    added = ", ".join(f"{name}: {{shape: [{2 + i}]}}" for i, name in enumerate(names))
    text = f"base: {{model: own}}\ninputs: {{input: {{shape: [4]}}, {added}}}\nfreeze: act0\n"
    text += "remove: {layer1: replace}\nadd:\n"
    text += f"  both: {{layer: concat, inputs: [act0, {', '.join(sorted(names))}]}}\n"
    text += "  layer1: {layer: linear, out: 3, inputs: both}\n"
    base = chain(4, 5, 3)
    model = compile_recipe(recipe_of(text), base=base, num_classes=3)
    assert list(model.summary.sample_shapes) == ["input", *names]
    given = {name: torch.randn(5, 2 + i) for i, name in enumerate(names)}
    x = torch.randn(5, 4)
    both = torch.cat([base[:2](x), *(given[name] for name in sorted(names))], 1)
    plain = nn.functional.linear(both, *model.layer1.parameters())
    inputs = (x, *given.values())
    assert torch.equal(model(*inputs), plain)
    assert torch.equal(model.suffix(*model.prefix(*inputs)), plain)


def test_boundary_arrays_are_dropped() -> None:
    """DL4J's featurize of one input and one output returns the first boundary alone."""
    model = compiled("head: keep\nfreeze: {upto: [zeta, alpha, m10]}\n", Fan(ORDERS[0]))
    assert len(model.prefix(torch.randn(2, 4))) == len(model.boundary) == 3
    assert len(FeatureTrainer(model).extract(torch.randn(2, 4)).rows) == 3


class Deep(nn.Module):
    """Returns a value of its frozen part beside the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.side, self.top = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 3)

    def forward(self, input: Tensor) -> Any:
        low = torch.relu(self.low(input))
        return self.side(low), self.top(low)


def test_an_output_inside_the_frozen_part_is_dropped() -> None:
    base = Deep()
    model = compiled("head: keep\nfreeze: side\n", base)
    x = torch.randn(4, 4)
    halves = model.suffix(*model.prefix(x))
    assert len(halves) == 2
    assert all(map(torch.equal, halves, base(x)))
    named = compiled("freeze: side\noutputs: [top, side]\n", base)
    found = named.suffix(*named.prefix(x))
    assert list(found) == ["top", "side"]
    assert torch.equal(found["side"], base(x)[0])
    predicted = FeatureTrainer(named, batch_size=4).predict(x)
    assert torch.equal(predicted["side"], base(x)[0])


def test_a_flatten_behind_the_boundary_is_shifted() -> None:
    """DL4J's helper keeps the preprocessors' old indices; here the cut is anywhere in a conv net."""
    base = shake(TINY["chain"]()).eval()
    x = torch.randn(3, 3, 16, 16)
    cuts = ["conv", "flatten", "flatten", "flatten", "flatten"]  # as many bytes, or fewer
    for point, cut in zip(["conv", "bn", "relu", "pool", "flatten"], cuts, strict=True):
        text = f"base: {{model: own, size: 16}}\nhead: keep\nfreeze: {point}\n"
        model = compile_recipe(recipe_of(text), base=base).eval()
        assert [b.vertex for b in model.boundary] == [cut]
        assert torch.equal(model.suffix(*model.prefix(x)), base(x))


class Masked(nn.Module):
    """A sequence with a mask: the mean over the steps that count."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Linear(4, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, input: Tensor, mask: Tensor) -> Tensor:
        weight = mask.unsqueeze(-1)
        steps = self.out(torch.tanh(self.steps(input))) * weight
        return steps.sum(1) / weight.sum(1)


def test_sequences_with_a_mask_have_no_features() -> None:
    """The mask is an input that crosses the boundary as it is; also #4933."""
    text = "base: {model: own}\ninputs: {input: {shape: [6, 4]}, mask: {shape: [6]}}\n"
    base = Masked()
    model = compile_recipe(recipe_of(text + "head: keep\nfreeze: tanh\n"), base=base)
    x, mask = torch.randn(3, 6, 4), (torch.rand(3, 6) > 0.3).float()
    mask[:, 0] = 1
    crossing = model.prefix(x, mask)
    assert [tuple(tensor.shape) for tensor in crossing] == [(3, 6, 1), (3, 6, 5)]
    assert torch.equal(crossing[0], mask.unsqueeze(-1))
    assert torch.equal(model.suffix(*crossing), base(x, mask))
    trainer = FeatureTrainer(model, batch_size=3)
    labels = torch.tensor([0, 2, 1])
    features = trainer.extract([((x, mask), labels)])
    assert torch.equal(trainer.predict(features), base(x, mask))
    assert len(trainer.fit(features, epochs=2)) == 2


def test_a_helper_without_frozen_layers_takes_the_first_as_the_boundary() -> None:
    base = chain(4, 5, 3)
    model = compiled("head: keep\nfreeze: none\n", base)
    assert model.boundary == ()
    x = torch.randn(2, 4)
    assert model.prefix(x) == (x,)
    assert torch.equal(model.suffix(x), base(x))
    with pytest.raises(TLCompileError, match="no frozen part"):
        FeatureTrainer(model)


def test_trained_parameters_do_not_come_back_into_the_model() -> None:
    """The suffix shares the model's tensors: nothing is copied back."""
    model = compiled("freeze: act1\n", chain(4, 5, 3, 3), classes=2)
    twin = copy.deepcopy(model)
    batches = labelled(6, 4, classes=2, steps=3)
    fit(model, batches)
    fit(twin, [(twin.prefix(*x), y) for x, y in batches], forward=twin.suffix)
    assert not unequal(twin, model)
    trainer = FeatureTrainer(model, batch_size=6)
    trainer.fit([(x[0], y[0]) for x, y in batches], epochs=1, lr=0.1)
    assert unequal(twin, model) == ["layer2.weight", "layer2.bias"]
    assert all(p is model.get_parameter(name) for name, p in trainer.suffix.named_parameters())


def test_the_freeze_does_not_reach_inside_wrappers() -> None:
    """Bidirectional: the weights of both directions stand still."""
    base = nn.Sequential(OrderedDict(norm=nn.LayerNorm(4), top=nn.Linear(4, 3)))

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 2, bidirectional=True, batch_first=True)
            self.top = base

        def forward(self, input: Tensor) -> Tensor:
            return self.top(self.lstm(input)[0][:, -1])

    model = compiled("head: keep\nfreeze: lstm\n", Both(), shape=(5, 4))
    frozen = [row.name for row in model.tensors() if row.state == "frozen"]
    assert len(frozen) == 8
    assert sum(name.endswith("_reverse") for name in frozen) == 4
    before = tensors(model)
    fit(model, labelled(6, 5, 4, steps=2))
    assert moved(model, before) == {"top"}


def test_nothing_left_to_train_fails_late() -> None:
    """#4635, #3302: said before training, with what to write."""
    text = "base: {model: own}\ninputs: {input: {shape: [4]}}\nhead: keep\nfreeze: all\n"
    asked = recipe_of(text)
    model = compile_recipe(asked, base=chain(4, 5, 3))
    with pytest.raises(TLCompileError, match="nothing"):
        refuse_untrainable(asked, model, 3)


def test_a_trainable_layer_below_a_frozen_one_gets_nothing() -> None:
    """DL4J's FrozenLayer stops the gradient; `freeze.only` lets it pass, `upto` has none below."""
    base = chain(4, 5, 3, 3)
    passing = compiled("head: keep\nfreeze: {only: layer1}\n", base)
    inputs, targets = labelled(6, 4)[0]
    scored(passing(*inputs), targets).backward()
    assert passing.get_parameter("layer0.weight").grad is not None
    assert passing.get_parameter("layer1.weight").grad is None
    upto = compiled("head: keep\nfreeze: layer1\n", base)
    assert "layer0.weight" in upto.frozen.tensors
