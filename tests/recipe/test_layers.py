"""Every layer type of the vocabulary, compiled and compared with plain torch, to the bit."""

from __future__ import annotations

import copy
import re
from typing import Any, get_args

import pytest
import torch
from recipe.layer_rows import ROWS, WRONG, Row, V
from recipe.many_shapes import INPUTS, ManyShapes, compiled
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.fields import Activation
from tlcompile.recipe.layers.activation import activation_call
from tlcompile.recipe.layers.any_layer import AnyLayer
from tlcompile.recipe.schema import Recipe

# The name of the new layer in the state dict, and of the one that it holds.
PART = re.compile(r"^new\.(cells\.|heads\.)?")

# Tested below, by themselves: they need another input, or each other.
ALONE = {"embedding", "stack", "unstack"}


def words_of_the_registry() -> set[str]:
    kinds = get_args(get_args(AnyLayer)[0])
    return {w for kind in kinds for w in get_args(kind.model_fields["layer"].annotation)}


def test_every_layer_type_has_a_row() -> None:
    assert len(words_of_the_registry()) == 63
    assert {row.layer["layer"] for row in ROWS} | ALONE == words_of_the_registry()


def plain_output(row: Row, model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the row without the compiler, given the compiled model's weights."""
    values = [INPUTS[name](model, x) for name in row.inputs]
    module = None
    if row.module is not None:
        state = {k: v for k, v in model.state_dict().items() if k.startswith("new.")}
        module = row.module().train(model.training)
        module.load_state_dict({PART.sub("", name): v.clone() for name, v in state.items()})
    torch.manual_seed(7)
    output = row.call(module, *values)
    return output, module.state_dict() if module is not None else {}


_COMPILED: dict[str, CompiledModel] = {}


def model_of(row: Row) -> CompiledModel:
    """Compile a row once, and give each test its copy."""
    key = f"{row.layer} {row.inputs}"
    if key not in _COMPILED:
        _COMPILED[key] = compiled(row.layer, row.inputs)
    return copy.deepcopy(_COMPILED[key])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_layer_is_torchs_own(row: Row, training: bool) -> None:
    x = torch.randn(3, 3, 6, 6)
    model = model_of(row).train(training)
    assert model.frozen.modules
    assert not model.get_submodule("body").training
    expected, state = plain_output(row, model, x)
    torch.manual_seed(7)
    assert torch.equal(model(x), expected)
    ours = {PART.sub("", name): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(ours[name], tensor) for name, tensor in state.items())  # statistics too


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_layer_behind_the_frozen_part(row: Row) -> None:
    x = torch.randn(3, 3, 6, 6)
    model = model_of(row).eval()
    assert model.boundary
    assert torch.equal(model.suffix(*model.prefix(x)), model(x))
    twin = copy.deepcopy(model)
    assert twin.frozen == model.frozen
    assert torch.equal(twin(x), model(x))


def test_new_weights_depend_on_seed_and_name_alone() -> None:
    row = next(row for row in ROWS if row.layer["layer"] == "lstm")
    first, again = compiled(row.layer, row.inputs), compiled(row.layer, row.inputs)
    ours = {name: t for name, t in first.state_dict().items() if name.startswith("new.")}
    assert len(ours) == 16
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in ours.items())


LEARNING = [row for row in ROWS if row.module and list(row.module().parameters())]


@pytest.mark.parametrize("row", LEARNING, ids=str)
def test_every_new_weight_gets_a_gradient(row: Row) -> None:
    model = model_of(row).train()
    model(torch.randn(3, 3, 6, 6)).square().sum().backward()
    new = {name: p for name, p in model.named_parameters() if name.startswith("new.")}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in new.values())


@pytest.mark.parametrize(("layer", "inputs"), WRONG, ids=[layer["layer"] for layer, _ in WRONG])
def test_layer_refuses_what_it_cannot_take(layer: dict[str, Any], inputs: list[str]) -> None:
    with pytest.raises(TLCompileError) as caught:
        compiled(layer, inputs)
    assert caught.value.slug in ("shape-mismatch", "wrong-inputs")
    assert caught.value.key[:2] == ("add", "new")


def test_every_activation_is_a_class_of_torch() -> None:
    names = get_args(Activation)
    assert len(names) == 24
    for name in names:
        call = activation_call(name)
        module = getattr(nn, call.name.removeprefix("nn."))(**call.kwargs)
        assert module(torch.randn(2, 3)).shape == (2, 3)


def test_siamese_twins_share_one_layer() -> None:
    add = {
        "twice": {"layer": "scale", "by": 2, "inputs": V},
        "both": {"layer": "stack", "inputs": [V, "twice"]},
        "shared": {"layer": "linear", "out": 5, "inputs": "both"},
        "left": {"layer": "unstack", "index": 0, "num": 2, "inputs": "shared"},
        "right": {"layer": "unstack", "index": 1, "num": 2, "inputs": "shared"},
    }
    model = compiled({"layer": "pairwise_distance"}, ["left", "right"], add).eval()
    x = torch.randn(3, 3, 6, 6)
    vector = INPUTS[V](model, x)
    shared = model.get_submodule("shared")
    rows = shared(torch.cat([vector, 2 * vector]))
    assert torch.equal(model(x), F.pairwise_distance(rows[:3], rows[3:], keepdim=True))


class Twins(nn.Module):
    """A base that stacks samples itself, as a run with `stack` would."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Flatten()
        self.shared = nn.Linear(12, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        both = self.shared(torch.cat([one, 2 * one], 0)).unflatten(0, (2, -1))
        return self.fc(both[0] - both[1])


def test_frozen_stack_and_unstack_are_one_step_to_the_batch() -> None:
    recipe = Recipe.model_validate(
        {"base": {"model": "twins", "size": 2}, "head": "keep", "freeze": {"upto": ["sub"]}}
    )
    model = compile_recipe(recipe, base=Twins()).eval()
    x = torch.randn(3, 3, 2, 2)
    assert torch.equal(model.suffix(*model.prefix(x)), model(x))
    assert [b.shape for b in model.boundary] == [(4,)]


def test_freezing_between_stack_and_unstack_keeps_no_features() -> None:
    recipe = Recipe.model_validate(
        {"base": {"model": "twins", "size": 2}, "head": "keep", "freeze": {"upto": ["shared"]}}
    )
    base = Twins().eval()
    model = compile_recipe(recipe, base=base).eval()
    x = torch.randn(3, 3, 2, 2)
    assert model.boundary == ()
    assert model.frozen.tensors == {"shared.weight", "shared.bias"}
    assert torch.equal(model(x), base(x))


def test_stacked_samples_are_counted_in_batches() -> None:
    assert compiled({"layer": "stack"}, [V, V]).summary.vertices[-1].shape == "(2N, 4)"


def test_embedding_reads_an_input_of_whole_numbers() -> None:
    add = {
        "words": {
            "layer": "embedding",
            "num_embeddings": 9,
            "out": 6,
            "padding_idx": 2,
            "init": "normal",
            "inputs": "numbers",
        },
        "mean": {"layer": "global_pool", "tokens": True, "inputs": "words"},
    }
    inputs = {"numbers": {"shape": [5], "dtype": "int64"}}
    model = compiled({"layer": "concat"}, [V, "mean"], add, inputs=inputs).eval()
    x, numbers = torch.randn(3, 3, 6, 6), torch.randint(9, (3, 5))
    weight = model.state_dict()["words.weight"]
    assert not weight[2].any()
    assert weight[3].any()
    mean = F.embedding(numbers, weight).mean(1)
    assert torch.equal(model(x, numbers), torch.cat([INPUTS[V](model, x), mean], 1))


def test_the_base_of_these_tests_is_plain() -> None:
    base = ManyShapes()
    assert base(torch.randn(2, 3, 6, 6)).shape == (2, 2)
