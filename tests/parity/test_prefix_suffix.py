"""Cut at the freeze point: the two halves are the whole, and the frozen half stands still."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from graph.tiny import TINY, recipe, shake
from torch import Tensor, nn

from parity.plain import differences, evaluated, images, plain_model, side_of, stepped
from tlcompile.compiler import compile_recipe
from tlcompile.errors.graph import UnknownStageError
from tlcompile.model.compiled import CompiledModel

NAMES = ["resnet18", "vgg11", "squeezenet1_0", "mobilenet_v3_small", "densenet121", "vit_b_16"]
POINTS = ["stage1", "stage2", "stage3", "stage4", "head"]
MISSING = {("squeezenet1_0", "stage4")}  # graph.md e: it has no map at stride 32


def frozen_at(model: nn.Module, point: str, side: int, **sections: Any) -> CompiledModel:
    plain = {"head": "keep", "freeze": point, **sections}
    return compile_recipe(recipe(base={"model": "own", "size": side}, **plain), base=model)


class InHalves(nn.Module):
    """The model as prefix and suffix, with the model's own names."""

    def __init__(self, model: CompiledModel) -> None:
        super().__init__()
        self.__dict__["model"] = model

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.named_parameters()

    def named_buffers(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.named_buffers()

    def train(self, mode: bool = True) -> InHalves:
        self.model.train(mode)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.model.zero_grad(set_to_none)

    def forward(self, x: Tensor) -> Any:
        return self.model.suffix(*self.model.prefix(x))


LARGE = ("vgg11", "vit_b_16", "densenet121")  # half a gigabyte a step, or many points


def marks(name: str) -> Any:
    return pytest.mark.slow if name in LARGE else ()


@pytest.mark.parametrize(
    ("name", "points"),
    [
        *(pytest.param(name, POINTS, marks=marks(name)) for name in NAMES),
    ],
)
def test_halves_are_the_whole(name: str, points: list[str]) -> None:
    model, x = plain_model(name), images(name)
    for point in points:
        if (name, point) in MISSING:
            with pytest.raises(UnknownStageError):
                frozen_at(model, point, side_of(name))
            continue
        compiled = frozen_at(model, point, side_of(name))
        assert len(compiled.boundary) == 1, point  # at a stage's end, one tensor is alive
        assert list(compiled.state_dict()) == list(model.state_dict())
        again = copy.deepcopy(compiled)
        assert all(map(torch.equal, evaluated(InHalves(compiled), x), evaluated(compiled, x))), (
            point
        )
        assert not differences(stepped(InHalves(compiled), x), stepped(again, x)), point


def test_eval_is_the_base_in_halves_with_auxiliary_heads() -> None:
    model, x = plain_model("googlenet"), images("googlenet", 2)
    compiled = frozen_at(model, "inception4b", side_of("googlenet"))
    assert all(map(torch.equal, evaluated(InHalves(compiled), x), evaluated(model, x)))
    again = copy.deepcopy(compiled)
    assert not differences(stepped(InHalves(compiled), x), stepped(again, x))
    assert len(compiled.train().suffix(*compiled.prefix(x))) == 3


def frozen_state(model: CompiledModel) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items() if n in model.frozen.tensors}


def train_three_steps(model: CompiledModel, x: Tensor) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("way", ["itself", "deepcopy", "pickle"])
@pytest.mark.parametrize("freeze", [{"upto": "layer1.0"}, {"upto": "none", "only": ["layer1"]}])
def test_frozen_tensors_never_move(way: str, freeze: dict[str, Any]) -> None:
    model = frozen_at(shake(TINY["residual"]()), "none", 16, freeze=freeze)
    if way == "deepcopy":
        model = copy.deepcopy(model)
    if way == "pickle":
        model = pickle.loads(pickle.dumps(model))
    before = frozen_state(model)
    others = {n: t.clone() for n, t in model.state_dict().items() if n not in before}
    assert "layer1.0.bn1.running_mean" in before
    assert "layer1.0.bn1.num_batches_tracked" in before
    train_three_steps(model, torch.randn(4, 3, 16, 16))
    assert not differences(frozen_state(model), before)
    after = model.state_dict()
    assert all(not torch.equal(after[name], tensor) for name, tensor in others.items())


def test_freezing_alone_is_no_prefix_and_lets_gradients_through() -> None:
    freeze = {"upto": "none", "only": ["layer1"]}
    model = frozen_at(shake(TINY["residual"]()), "none", 16, freeze=freeze)
    x = torch.randn(2, 3, 16, 16)
    assert model.boundary == ()
    assert torch.equal(model.eval().suffix(*model.prefix(x)), model(x))
    model.train()(x).sum().backward()
    assert model.get_parameter("stem.weight").grad is not None
    assert model.get_parameter("layer1.0.conv1.weight").grad is None


def test_a_child_called_prefix_hides_nothing() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prefix = nn.Linear(4, 4)
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            return self.fc(self.prefix(x.flatten(1)[:, :4]))

    model = frozen_at(Named(), "prefix", 16)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.suffix(*model.prefix(x)), model(x))
    assert next(iter(model.state_dict())) == "prefix.weight"


def test_a_deepcopy_is_independent() -> None:
    model = frozen_at(shake(TINY["chain"]()), "bn", 16)
    twin, x = copy.deepcopy(model), torch.randn(4, 3, 16, 16)
    before = [t.clone() for t in evaluated(model, x)]
    train_three_steps(twin, x)
    assert all(map(torch.equal, evaluated(model, x), before))
    assert not torch.equal(evaluated(twin, x)[0], before[0])


def test_a_module_that_returns_a_tuple_is_not_computed_in_the_prefix() -> None:
    point = "encoder.layers.encoder_layer_0.ln_1"  # its attention, which learns, comes next
    compiled = frozen_at(plain_model("vit_b_32"), point, side_of("vit_b_32"))
    names = {boundary.vertex for boundary in compiled.boundary}
    assert point in names
    compiled.train()(images("vit_b_32", 2)).sum().backward()
    attention = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
    halves = InHalves(compiled)
    compiled.zero_grad()
    halves(images("vit_b_32", 2)).sum().backward()
    assert compiled.get_parameter(attention).grad is not None


def test_the_prefix_computes_nothing_behind_the_freeze_point() -> None:
    compiled = frozen_at(plain_model("vit_b_32"), "stage1", side_of("vit_b_32"))
    calls: list[str] = []
    for name, module in compiled.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    compiled.prefix(images("vit_b_32", 2))
    assert any("encoder_layer_2" in name for name in calls)
    assert not any("encoder_layer_3" in name for name in calls)
