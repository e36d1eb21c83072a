"""DL4J's tests of frozen layers, with and without gradients through them. Case ids: docs/dl4j.md."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parity.dl4j import Batch, chain, compiled, fit, labelled, moved, scored, sgd, tensors, unequal
from parity.plain import differences

DENSE = (4, 5, 2, 3, 3)


class Cnn(nn.Module):
    """Convolution, pooling, convolution, two dense layers, an output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = nn.Conv2d(1, 4, 3)
        self.layer1 = nn.MaxPool2d(2)
        self.layer2 = nn.Conv2d(4, 4, 3)
        self.layer3, self.layer4 = nn.Linear(4 * 11 * 11, 6), nn.Linear(6, 5)
        self.layer5 = nn.Linear(5, 10)

    def forward(self, input: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.layer0(input)))
        return self.layer5(torch.sigmoid(self.layer4(torch.sigmoid(self.layer3(x.flatten(1))))))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.4])
def test_e1_e2_no_penalty_leaks_into_frozen_layers(weight_decay: float, momentum: float) -> None:
    text = "freeze: layer4\nremove: {layer5: replace}\n"
    text += "add: {layer5: {layer: linear, out: 10}}\noutputs: [layer5]\n"
    model = compiled(text, Cnn(), shape=(1, 28, 28))
    before = tensors(model)
    batches = [((torch.randn(16, 1, 28, 28),), (torch.rand(16, 10),)) for _ in range(20)]
    optimizer = sgd(model, 0.5, weight_decay=weight_decay, momentum=momentum)
    fit(model, batches, optimizer=optimizer)
    assert moved(model, before) == {"layer5"}
    after = model.state_dict()
    assert not any(
        torch.equal(after[name], before[name]) for name in ("layer5.weight", "layer5.bias")
    )


class Graph(nn.Module):
    """DL4J's dense graph: layer 1 reads layer 0, and both are read further on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0, self.layer1 = nn.Linear(4, 5), nn.Linear(5, 2)
        self.layer2, self.layer3 = nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, input: Tensor) -> Tensor:
        frozen = torch.sigmoid(self.layer1(torch.sigmoid(self.layer0(input))))
        return self.layer3(torch.sigmoid(self.layer2(frozen)))

    def head(self, x: Tensor) -> Tensor:
        return self.layer3(torch.sigmoid(self.layer2(torch.sigmoid(x))))

    def features(self, x: Tensor) -> Tensor:
        return self.layer1(torch.sigmoid(self.layer0(x)))


FROZEN = "head: keep\nfreeze: layer1\n"


@pytest.mark.parametrize("kind", ["chain", "graph"])
def test_e3_e5_a_frozen_net_trains_as_its_tail(kind: str) -> None:
    graph = Graph()
    base: nn.Module = graph
    if kind == "chain":
        base = chain(*DENSE)
        base.load_state_dict(graph.state_dict())
    model = compiled(FROZEN, base)
    batches = labelled(10, 4, steps=5)
    with torch.no_grad():
        features = [((graph.features(x),), y) for (x,), y in batches]
    scores = fit(graph, features, forward=graph.head, optimizer=sgd(graph))
    assert fit(model, batches) == scores
    assert not unequal(model, graph)
    original = tensors(base, "layer0", "layer1")
    assert not differences(tensors(model, "layer0", "layer1"), original)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", [Graph, lambda: chain(*DENSE)])
def test_e4_e6_a_clone_is_still_frozen(kind: Any, way: str) -> None:
    base = kind()
    model = compiled(FROZEN, base)
    clone = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert not unequal(clone, model)
    batches = labelled(10, 4, steps=5)
    base.get_submodule("layer0").requires_grad_(False)
    base.get_submodule("layer1").requires_grad_(False)
    before = tensors(clone, "layer0", "layer1")
    assert fit(clone, batches) == fit(model, batches) == fit(base, batches)
    assert not unequal(clone, base)
    assert not unequal(model, base)
    assert not differences(tensors(clone, "layer0", "layer1"), before)


@pytest.mark.parametrize("kind", [Graph, lambda: chain(*DENSE)])
@pytest.mark.parametrize("freeze", ["{upto: layer1}", "{only: [layer0, layer1]}"])
def test_e7_e8_e9_the_freeze_is_no_part_of_the_initial_weights(kind: Any, freeze: str) -> None:
    text = "remove: {layer3: replace}\nadd: {layer3: {layer: linear, out: 3}}\n"
    base = kind()
    plain = compiled("freeze: none\n" + text, base)
    frozen = compiled(f"freeze: {freeze}\n" + text, base)
    assert not unequal(frozen, plain)
    again = pickle.loads(pickle.dumps(frozen))
    x = torch.randn(3, 4)
    assert torch.equal(frozen(x), plain(x))
    assert torch.equal(again(x), plain(x))
    assert again.frozen == frozen.frozen != plain.frozen


def test_e10_gradients_pass_through_frozen_layers_even_the_output() -> None:
    model = compiled("head: keep\nfreeze: {only: [layer1, layer2, layer3]}\n", chain(*DENSE))
    before = tensors(model)
    fit(model, labelled(10, 4, steps=100), optimizer=sgd(model, 2.0))
    assert moved(model, before) == {"layer0"}


class Joined(nn.Module):
    """A branch of three layers and a branch of one, side by side, and an output."""

    def __init__(self) -> None:
        super().__init__()
        self.initial = nn.Linear(4, 4)
        self.frozen0, self.frozen1 = nn.Linear(4, 4), nn.Linear(4, 4)
        self.free = nn.Linear(4, 4)
        self.out = nn.Linear(8, 3)

    def forward(self, input: Tensor) -> Tensor:
        one = self.frozen1(self.frozen0(self.initial(input)))
        return self.out(torch.cat([one, self.free(input)], 1))


def test_e11_a_layer_below_frozen_ones_in_a_branch_learns() -> None:
    model = compiled("head: keep\nfreeze: {only: [frozen0, frozen1, out]}\n", Joined())
    before = tensors(model)
    fit(model, labelled(10, 4, steps=100), optimizer=sgd(model, 0.5))
    assert moved(model, before) == {"initial", "free"}


def rate_zero(model: nn.Module, still: tuple[str, ...], lr: float) -> torch.optim.Optimizer:
    """Give the layers of `still` a learning rate of 0, and the others `lr`."""
    parts = dict(model.named_children())
    return torch.optim.SGD(
        [
            {"params": list(part.parameters()), "lr": 0.0 if name in still else lr}
            for name, part in parts.items()
            if list(part.parameters())
        ]
    )


@pytest.mark.parametrize(
    ("base", "still"),
    [(chain(*DENSE), ("layer1", "layer2", "layer3")), (Joined(), ("frozen0", "frozen1", "out"))],
    ids=["e12_chain", "e13_graph"],
)
def test_e12_e13_frozen_alone_is_a_learning_rate_of_zero(
    base: nn.Module, still: tuple[str, ...]
) -> None:
    plain = copy.deepcopy(base)
    model = compiled(f"head: keep\nfreeze: {{only: [{', '.join(still)}]}}\n", base)
    batches = labelled(10, 4, steps=100)
    scores = fit(plain, batches, optimizer=rate_zero(plain, still, 0.1))
    assert fit(model, batches, optimizer=sgd(model, 0.1)) == scores
    assert not unequal(model, plain)


# Section H: what DL4J checks of a transferred model in isolation


HEAD = "freeze: layer1\nremove: {layer3: replace}\nadd: {layer3: {layer: linear, out: 3}}\n"


def batch() -> Batch:
    return labelled(10, 4)[0]


@pytest.mark.parametrize("kind", [Graph, lambda: chain(*DENSE)])
def test_h1_the_forward_has_the_output_s_shape(kind: Any) -> None:
    assert compiled(HEAD, kind())(torch.randn(10, 4)).shape == (10, 3)


@pytest.mark.parametrize("kind", [Graph, lambda: chain(*DENSE)])
def test_h2_h4_every_trainable_parameter_gets_a_gradient_and_no_other(kind: Any) -> None:
    model = compiled(HEAD, kind())
    inputs, targets = batch()
    scored(model(*inputs), targets).backward()
    found = {name for name, p in model.named_parameters() if p.grad is not None}
    assert found == {name for name, _ in model.trainable()}
    assert found == {"layer2.weight", "layer2.bias", "layer3.weight", "layer3.bias"}
    whole = compiled("head: keep\nfreeze: none\n", kind())
    scored(whole(*inputs), targets).backward()
    count = sum(p.grad.numel() for p in whole.parameters() if p.grad is not None)
    assert count == sum(p.numel() for p in kind().parameters())


def test_h3_gradients_lie_in_memory_as_in_a_fresh_model() -> None:
    model, fresh = compiled(HEAD, Graph()), Graph()
    inputs, targets = batch()
    for one in (model, fresh):
        scored(one(*inputs), targets).backward()
    theirs = dict(fresh.named_parameters())
    for name, parameter in model.trainable():
        other = theirs[name]
        assert parameter.grad is not None
        assert other.grad is not None
        assert (parameter.stride(), parameter.grad.stride()) == (
            other.stride(),
            other.grad.stride(),
        )
        assert (parameter.shape, parameter.grad.shape) == (other.shape, other.grad.shape)


def test_h5_an_optimizer_keeps_state_for_what_trains_alone() -> None:
    model = compiled(HEAD, Graph())
    optimizer = torch.optim.Adam(model.parameters())
    fit(model, [batch()], optimizer=optimizer)
    assert set(optimizer.state) == {parameter for _, parameter in model.trainable()}
