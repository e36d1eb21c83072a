"""The halves of a model as modules of their own: the model's tensors, its names, its freeze."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from graph.test_split import Several, Windows, frozen_at, images
from graph.tiny import TINY, Chain, shake
from torch import Tensor, nn

from tlcompile.model.compiled import CompiledModel


class Scales(nn.Module):
    """Parameters and a buffer of the root itself, on both sides of the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.top = nn.Parameter(torch.rand(768)), nn.Parameter(torch.rand(4))
        self.conv, self.fc = nn.Linear(768, 4), nn.Linear(4, 3)
        self.register_buffer("shift", torch.rand(4), persistent=False)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.conv(x.flatten(1) * self.low) * self.top + self.shift)


MADE: dict[str, Any] = {
    "chain": lambda: frozen_at(shake(Chain()), "conv"),
    "residual": lambda: frozen_at(shake(TINY["residual"]()), "layer1.0"),
    "branches": lambda: frozen_at(shake(TINY["branches"]()), "left"),
    "frozen in the suffix": lambda: frozen_at(shake(Windows()), "mix"),
    "several": lambda: frozen_at(shake(Several()), "low", inputs={"meta": {"shape": [2]}}),
    "bare parameters": lambda: frozen_at(shake(Scales()), "conv"),
    "nothing frozen": lambda: frozen_at(shake(Chain()), "none"),
}


def inputs_of(model: CompiledModel) -> tuple[Tensor, ...]:
    shapes = model.summary.sample_shapes.values()
    return tuple(torch.randn(4, *shape) for shape in shapes)


def leaves(value: Any) -> list[Tensor]:
    found: list[Tensor] = torch.utils._pytree.tree_leaves(value)
    return found


def step(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    torch.manual_seed(0)
    module.zero_grad()
    sum(leaf.square().sum() for leaf in leaves(module(*inputs))).backward()  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad


@pytest.mark.parametrize("name", MADE)
def test_the_two_modules_are_the_model(name: str) -> None:
    model = MADE[name]()
    inputs, prefix, suffix = inputs_of(model), model.prefix_module(), model.suffix_module()
    for mode in (False, True):
        model.train(mode)
        torch.manual_seed(0)
        whole = leaves(model(*inputs))
        prefix.train(mode)
        suffix.train(mode)
        torch.manual_seed(0)
        halves = leaves(suffix(*prefix(*inputs)))
        assert len(whole) == len(halves) > 0
        assert all(map(torch.equal, whole, halves)), mode


@pytest.mark.parametrize("name", MADE)
def test_each_has_the_model_s_own_tensors_that_it_uses(name: str) -> None:
    model = MADE[name]()
    whole = dict(model.named_parameters()) | dict(model.named_buffers())
    for half in (model.prefix_module(), model.suffix_module()):
        own = dict(half.named_parameters()) | dict(half.named_buffers())
        assert all(whole[key] is tensor for key, tensor in own.items())
        assert list(half.state_dict()) == [key for key in model.state_dict() if key in own]


@pytest.mark.parametrize("name", MADE)
def test_each_has_no_tensor_that_it_does_not_use(name: str) -> None:
    model = MADE[name]()
    given = inputs_of(model)
    halves = {model.prefix_module(): given, model.suffix_module(): model.prefix(*given)}
    for half, inputs in halves.items():
        for key in half.state_dict():
            path, _, last = key.rpartition(".")
            if last == "num_batches_tracked":
                continue  # counted in train mode alone
            broken = copy.deepcopy(half)
            delattr(broken.get_submodule(path), last)
            with pytest.raises(AttributeError):
                broken(*inputs)


@pytest.mark.parametrize("name", [n for n in MADE if n != "nothing frozen"])
def test_training_the_suffix_trains_the_model(name: str) -> None:
    model = MADE[name]()
    twin = copy.deepcopy(model).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    inputs, suffix = inputs_of(model), model.suffix_module().train()
    step(suffix, model.prefix_module()(*inputs))
    step(twin, inputs)
    after = model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in twin.state_dict().items())
    moved = {key for key in after if not torch.equal(after[key], before[key])}
    assert moved
    assert moved.isdisjoint(model.frozen.tensors)
    assert suffix.frozen.tensors == model.frozen.tensors & suffix.state_dict().keys()


def test_what_is_frozen_stays_in_eval_mode_in_both() -> None:
    model = frozen_at(shake(Windows()), "mix")
    for half in (model.prefix_module(), model.suffix_module()):
        half.train()
        frozen = [name for name in half.frozen.modules if half.get_submodule(name).training]
        assert half.frozen.modules
        assert not frozen
    assert model.suffix_module().train().fc.training
    assert {"inner.0", "inner.1", "mix"} == model.suffix_module().frozen.modules


@pytest.mark.parametrize("way", [copy.deepcopy, lambda half: pickle.loads(pickle.dumps(half))])
def test_a_copy_of_a_half_is_independent(way: Any) -> None:
    model = frozen_at(shake(Chain()), "conv").train()
    rows, twin = model.prefix(images()), way(model.suffix_module())
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    step(twin, rows)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in before.items())
    assert not torch.equal(twin.state_dict()["fc.weight"], before["fc.weight"])
    frozen = twin.train().frozen.modules
    assert not any(twin.get_submodule(name).training for name in frozen)


class Nested(nn.Module):
    """A norm inside the layer that it follows, as in a region that an earlier run added."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.fc = nn.Linear(768, 4), nn.Linear(4, 3)
        self.low.add_module("norm", nn.BatchNorm1d(4))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.low.norm(self.low(x.flatten(1))))


def test_a_norm_inside_its_layer_goes_with_the_half_that_calls_it() -> None:
    model = frozen_at(shake(Nested()), "low").train()
    prefix, suffix = model.prefix_module(), model.suffix_module()
    assert list(prefix.state_dict()) == ["low.weight", "low.bias"]
    assert list(suffix.state_dict()) == [
        key for key in model.state_dict() if key.startswith(("low.norm.", "fc."))
    ]
    x = images()
    step(suffix, prefix(x))
    assert torch.equal(prefix.eval()(x)[0], model.prefix(x)[0])
    assert torch.equal(suffix.eval()(*prefix(x)), model.eval()(x))
