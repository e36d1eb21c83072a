"""Overrides of dropout and activation: the base's own layers, and only those that train."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from graph.tiny import Chain, Residual, recipe_of
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from tlcompile.compiler import compile_recipe
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.graph import UnknownVertexError
from tlcompile.model.compiled import CompiledModel
from tlcompile.passes.freeze_upto import FreezeUpto
from tlcompile.passes.override_settings import FUNCTIONS, OverrideSettings, overridable
from tlcompile.recipe.regularise import HiddenActivation

VERTICES = {
    "chain": ("relu", "drop"),
    "residual": ("layer1.1.relu", "layer1.1.relu_1"),
    "branches": ("classifier.0",),
}


@pytest.mark.parametrize(
    ("tiny", "one"),
    [
        ("chain", OverrideSettings(vertices=VERTICES["chain"], dropout=0.2, activation="gelu")),
        ("residual", OverrideSettings(vertices=VERTICES["residual"], activation="silu")),
        ("branches", OverrideSettings(vertices=VERTICES["branches"], dropout=0.0)),
    ],
)
def test_golden(tiny: str, one: OverrideSettings, update_goldens: bool) -> None:
    check_golden(tiny, one, update_goldens)


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (OverrideSettings(vertices=("relu", "drop"), dropout=0.2), "'drop' have p = 0.2"),
        (OverrideSettings(vertices=("relu", "drop"), activation="gelu"), "'relu' is gelu"),
    ],
)
def test_the_promise_can_fail(one: OverrideSettings, word: str) -> None:
    check_promise_can_fail(one, tiny_after("chain"), word)


def test_every_name_is_a_function_of_torch() -> None:
    assert get_args(HiddenActivation) == tuple(FUNCTIONS)
    x = torch.linspace(-3, 3, 11)
    for name, function in FUNCTIONS.items():
        assert function(x).shape == x.shape, name
    assert torch.equal(FUNCTIONS["identity"](x), x)


def test_what_is_frozen_has_nothing_to_override() -> None:
    model_graph = tiny_after("residual", FreezeUpto(points=("layer1.0",)))
    assert overridable(model_graph, model_graph.frozen) == VERTICES["residual"]
    assert not overridable(model_graph, set(model_graph.names()))


class Gated(nn.Module):
    """Squeeze-and-excitation: an activation, a gate, and attention's softmax behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.squeeze = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.fc(x.mean((2, 3)).softmax(1)).relu()


def test_gates_softmax_and_what_follows_the_classifier_stay() -> None:
    model = compiled("head: keep\nfreeze: none\nfine_tune: {override: {activation: tanh}}", Gated())
    base = Gated()
    base.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 16, 16)
    y = torch.tanh(base.conv(x))
    y = y * torch.sigmoid(base.squeeze(y.mean((2, 3), keepdim=True)))
    assert torch.equal(model.eval()(x), base.fc(y.mean((2, 3)).softmax(1)).relu())


def compiled(text: str, module: nn.Module) -> CompiledModel:
    recipe = recipe_of(f"base: {{model: tiny, size: 16}}\n{text}\n")
    return compile_recipe(recipe, module, num_classes=3)


def kinds(model: CompiledModel) -> dict[str, str]:
    return {row.name: row.kind for row in model.summary.vertices}


def test_frozen_layers_keep_their_activation_and_their_features() -> None:
    base = Residual()
    text = "freeze: layer1.0"
    plain = compiled(text, base)
    other = compiled(f"{text}\nfine_tune: {{override: {{activation: tanh}}}}", base)
    x = torch.randn(2, 3, 16, 16)
    assert all(map(torch.equal, plain.prefix(x), other.prefix(x)))
    assert not torch.equal(plain.eval()(x), other.eval()(x))
    assert kinds(other)["layer1.0.relu"] == "ReLU"
    assert kinds(other)["layer1.1.relu"] == kinds(other)["layer1.1.relu_1"] == "tanh"
    assert isinstance(base.layer1[1].relu, nn.ReLU), "the user's own module was changed"


def test_what_trains_in_any_phase_is_overridden_in_every_phase() -> None:
    """One tree serves all phases: a function that changed between them would undo what was learned."""
    text = """
fine_tune:
  override: {activation: tanh}
  phases: [{name: head, freeze: head, epochs: 1}, {name: block, freeze: layer1.0, epochs: 1}]
"""
    recipe = recipe_of(f"base: {{model: tiny, size: 16}}\n{text}")
    for phase in recipe.phases():
        found = kinds(compile_recipe(phase, Residual(), num_classes=3))
        assert found["layer1.0.relu"] == "ReLU"
        assert found["layer1.1.relu"] == "tanh"


def test_dropout_of_the_base_is_set_or_cleared() -> None:
    base = Chain()
    for word, p in (("0.25", 0.25), ("none", 0.0)):
        model = compiled(f"freeze: bn\nfine_tune: {{override: {{dropout: {word}}}}}", base)
        assert model.get_submodule("drop").p == p
    model.train()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), model.eval()(x)), "dropout: none is still random"
    assert base.drop.p == 0.5


class InRoot(nn.Module):
    """Dropout as a function of the root, and inside a leaf of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.fc(x.flatten(2).transpose(1, 2)), 0.3, self.training)
        return self.encoder(x).mean(1)


def test_dropout_as_a_function_and_inside_a_leaf_is_reached() -> None:
    text = "freeze: none\nhead: keep\noutputs: [mean]\nfine_tune: {override: {dropout: none}}"
    model = compiled(text, InRoot())
    model.get_submodule("encoder").self_attn.dropout = 0.0  # type: ignore[union-attr, assignment]
    model.train()
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(model(x), model(x))


def test_added_layers_keep_their_own() -> None:
    text = """
freeze: bn
add: {new: {layer: linear, out: 8, activation: relu, dropout: 0.4, inputs: drop, feeds: fc}}
fine_tune: {override: {activation: tanh, dropout: 0.1}}
"""
    model = compiled(text, Chain())
    assert model.get_submodule("new.dropout").p == 0.4
    assert model.get_submodule("drop").p == 0.1
    assert kinds(model)["new.activation"] == "ReLU"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("freeze: head\nfine_tune: {override: {activation: tanh}}", 3),
        ("freeze: none\nremove: {drop: bypass}\nfine_tune: {override: {dropout: 0.1}}", 4),
    ],
)
def test_an_override_of_nothing_is_refused(text: str, line: int) -> None:
    with pytest.raises(NoEffectError) as caught:
        compiled(text, Chain())
    assert caught.value.line.startswith("fine_tune.override.")
    assert caught.value.where is not None
    assert caught.value.where.line == line


def test_an_unknown_vertex_of_a_later_phase_points_there() -> None:
    text = """
fine_tune:
  override: {activation: tanh}
  phases:
    - {name: head, freeze: head, epochs: 1}
    - {name: block, freeze: layer9, epochs: 1}
"""
    with pytest.raises(UnknownVertexError) as caught:
        compiled(text, Residual())
    assert caught.value.where is not None
    assert caught.value.where.line == 7


def test_settings_survive_a_round_trip() -> None:
    recipe = recipe_of("base: tiny\nfine_tune: {override: {dropout: none, activation: gelu}}\n")
    again = type(recipe).model_validate(recipe.model_dump(by_alias=True))
    assert again.fine_tune.override == recipe.fine_tune.override
