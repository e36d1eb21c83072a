"""Random edits of random models: what compiles equals a second, plain interpreter to the bit."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from graph.tiny import shake
from hypothesis import HealthCheck, Phase, currently_in_test_context, event, given, settings
from hypothesis import strategies as st
from tiny import make_recipe
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from property.drawn import NUM_OUT, Description, Net, descriptions
from property.eager import build, run
from property.edited import Edited, Refused
from property.recipes import Recipe, recipes
from property.reference import Reference
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.graph import PassBrokePromiseError
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.optim import build_optimizer

CLASSES = NUM_OUT + 1
BATCH = 5


@st.composite
def cases(draw: st.DrawFn) -> tuple[Description, Recipe]:
    description = draw(descriptions())
    return description, draw(recipes(description))


def base_of(description: Description) -> Net:
    torch.manual_seed(7)
    net = Net(description)
    shake(net)
    return net


def inputs_of(model: CompiledModel) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.randn(BATCH, *shape, generator=generator)
        for name, shape in model.summary.sample_shapes.items()
    }


def same(left: Any, right: Any) -> bool:
    """Tell whether two outputs are equal to the bit, with their structure."""
    lefts, one = pytree.tree_flatten(left)
    rights, other = pytree.tree_flatten(right)
    return one == other and all(torch.equal(a, b) for a, b in zip(lefts, rights, strict=True))


def outcome(description: Description, recipe: Recipe, base: Net) -> CompiledModel | TLCompileError:
    """Compile; nothing but a refusal may be raised, and a refusal is the user's, not ours."""
    try:
        return compile_recipe(make_recipe(**recipe), base=base, num_classes=CLASSES)
    except PassBrokePromiseError:
        raise
    except TLCompileError as refused:
        return refused


def expected(description: Description, recipe: Recipe, base: Net, model: Any) -> Edited | Refused:
    """Ask the second interpreter; new weights are the compiled model's."""
    try:
        edited = Reference(description, recipe, CLASSES).edited()
        build(edited, base, model.state_dict() if isinstance(model, CompiledModel) else None)
    except Refused as refused:
        return refused
    return edited


def _event(text: str) -> None:
    if currently_in_test_context():
        event(text)


def check_case(case: tuple[Description, Recipe]) -> None:
    description, recipe = case
    base = base_of(description)
    before = snapshot(base)
    model = outcome(description, recipe, base)
    assert snapshot(base) == before, "the user's module is as it was"
    wanted = expected(description, recipe, base, model)
    if isinstance(model, TLCompileError):
        _event(f"refused: {model.slug}")
        assert isinstance(wanted, Refused), f"refused, and the reference accepts:\n{model}"
        assert model.__class__.__name__ == "Problems" or model.where is not None, str(model)
        return
    assert isinstance(wanted, Edited), f"compiled, and the reference refuses: {wanted}"
    _event("compiled")
    check_structure(model, wanted)
    check_tensors(model, base)
    check_outputs(model, wanted)
    check_split(model)
    check_copies(model)
    check_order_of_keys(model, recipe, base)
    check_training(model)


def snapshot(base: nn.Module) -> Any:
    """Everything of a module that a compiler could change, comparable."""
    torch_state = torch.get_rng_state().numpy().tobytes()
    tensors = {
        n: (id(t), t.detach().numpy().tobytes()) for n, t in base.state_dict(keep_vars=True).items()
    }
    modules = [
        (n, m.training, sorted(vars(m)), len(m._forward_hooks), getattr(m, "inplace", None))
        for n, m in base.named_modules(remove_duplicate=False)
    ]
    grads = [(n, p.requires_grad) for n, p in base.named_parameters()]
    return torch_state, tensors, modules, grads


def check_structure(model: CompiledModel, wanted: Edited) -> None:
    rows = {row.name: row for row in model.summary.vertices}
    assert set(rows) == set(wanted.nodes)
    assert {n for n in rows if rows[n].frozen} == wanted.frozen & set(rows)
    assert list(model.summary.outputs) == list(dict.fromkeys(wanted.outputs))


def check_tensors(model: CompiledModel, base: Net) -> None:
    """Kept tensors keep name and bits; every tensor has one row; no other is left on meta."""
    own = base.state_dict()
    rows = {row.name: row for row in model.tensors() if row.state != "dropped"}
    state = model.state_dict()
    assert rows.keys() == state.keys()
    for name, row in rows.items():
        assert not state[name].is_meta
        if row.origin == "loaded":
            assert torch.equal(state[name], own[name]), name
    dropped = {row.name for row in model.tensors() if row.state == "dropped"}
    assert dropped == own.keys() - state.keys()


def check_outputs(model: CompiledModel, wanted: Edited) -> None:
    inputs = inputs_of(model)
    order = [row.name for row in model.summary.vertices]
    ours, theirs = copy.deepcopy(model), copy.deepcopy(wanted)
    modules = list(theirs.modules.items())
    for training in (False, True):
        ours.train(training)
        for name, module in modules:
            module.train(training and name not in theirs.frozen)
        torch.manual_seed(11)
        got = ours(*inputs.values())
        torch.manual_seed(11)
        assert same(got, run(theirs, order, inputs)), f"training {training}"
    state = ours.state_dict()
    for name, module in modules:  # running statistics moved alike
        path = theirs.nodes[name].vertex.module.removesuffix(".gain")
        for key, value in module.state_dict().items():
            assert torch.equal(state[f"{path}.{key}"], value)


def check_split(model: CompiledModel) -> None:
    inputs = list(inputs_of(model).values())
    for training in (False, True):
        whole, parts = copy.deepcopy(model).train(training), copy.deepcopy(model).train(training)
        torch.manual_seed(13)
        one = whole(*inputs)
        torch.manual_seed(13)
        assert same(one, parts.suffix(*parts.prefix(*inputs))), f"training {training}"
        assert same(whole.state_dict(), parts.state_dict())


def check_copies(model: CompiledModel) -> None:
    inputs = list(inputs_of(model).values())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.train()
        held = {n for n in model.frozen.modules if copied.get_submodule(n).training}
        assert not held
        assert [n for n, _ in copied.trainable()] == [n for n, _ in model.trainable()]
        assert same(copied.eval()(*inputs), copy.deepcopy(model).eval()(*inputs))


def check_order_of_keys(model: CompiledModel, recipe: Recipe, base: Net) -> None:
    turned = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(recipe.items())
    }
    other = outcome(Description((), ()), turned, base)
    assert isinstance(other, CompiledModel), f"the order of keys matters:\n{other}"
    assert list(other.state_dict()) == list(model.state_dict())
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert other._parts.programs == model._parts.programs


def check_training(model: CompiledModel) -> None:
    """Two steps: what is frozen stays, every trainable parameter is in one group."""
    model = copy.deepcopy(model).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trainable = list(model.trainable())
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n, _ in trainable}
    outputs = model(*inputs_of(model).values())
    if not trainable or not any(o.requires_grad for o in pytree.tree_leaves(outputs)):
        return
    optimizer = build_optimizer("sgd", trainable, lr=0.1)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for _, p in trainable)
    for _ in range(2):
        optimizer.zero_grad()
        outputs = model(*inputs_of(model).values())
        leaves = [o for o in pytree.tree_leaves(outputs) if o.requires_grad]
        sum((leaf**2).sum() for leaf in leaves).backward()
        missing = [n for n, p in trainable if p.grad is None]
        assert not missing, f"no gradient: {missing}"
        optimizer.step()
    for name, tensor in model.state_dict().items():
        if name in model.frozen.tensors:
            assert torch.equal(tensor, before[name]), name


QUIET = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=70, derandomize=True, phases=(Phase.generate,), **QUIET)
@given(cases())
def test_a_compiled_recipe_equals_a_second_interpreter(case: tuple[Description, Recipe]) -> None:
    check_case(case)


@pytest.mark.slow
@settings(max_examples=3000, **QUIET)
@given(cases())
def test_many_compiled_recipes_equal_a_second_interpreter(
    case: tuple[Description, Recipe],
) -> None:
    check_case(case)
