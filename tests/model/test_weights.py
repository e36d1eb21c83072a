"""Every tensor of a compiled model is real: the base's own, or initialised by its seed and name."""

from __future__ import annotations

import copy

import torch
from graph.tiny import TINY, recipe, shake

from tlcompile.compiler import compile_opened, compile_recipe, prove_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.open import open_base

REGION = {
    "neck": {
        "layer": "linear",
        "out": 6,
        "norm": "batch",
        "activation": "relu",
        "init": "kaiming_normal",
        "inputs": "flatten",
        "feeds": "drop",
    }
}


def test_kept_tensors_are_the_base_s_and_its_own_stay_alone() -> None:
    base = shake(TINY["chain"]())
    model = compile_recipe(recipe(add=REGION), base=base, num_classes=3)
    state, theirs = model.state_dict(), base.state_dict()
    for name in ("conv.weight", "bn.running_var", "bn.num_batches_tracked"):
        assert torch.equal(state[name], theirs[name])
        assert state[name].data_ptr() != theirs[name].data_ptr()
    assert not any(tensor.is_meta for tensor in state.values())


def test_a_region_has_its_own_weights_and_those_of_its_norm() -> None:
    model = compile_recipe(recipe(add=REGION), base=TINY["chain"](), num_classes=3)
    state = model.state_dict()
    assert state["neck.weight"].shape == (6, 32)
    assert not state["neck.bias"].any()  # an init that is named fills biases with 0
    assert torch.equal(state["neck.norm.weight"], torch.ones(6))
    assert model(torch.randn(4, 3, 16, 16)).shape == (4, 3)
    assert model.origins["neck.norm.running_mean"] == "added"


def test_new_weights_depend_on_the_name_and_not_on_the_order() -> None:
    side = {"side": {"layer": "linear", "out": 4, "inputs": "flatten"}}
    outputs = {"head": "keep", "outputs": ["fc", "side", "neck"]}
    plain = {"neck": {"layer": "linear", "out": 4, "inputs": "flatten"}}
    models = [
        compile_recipe(recipe(add=add, **outputs), base=TINY["chain"]())
        for add in ({**side, **plain}, {**plain, **side})
    ]
    states = [model.state_dict() for model in models]
    assert torch.equal(states[0]["neck.weight"], states[1]["neck.weight"])
    assert not torch.equal(states[0]["neck.weight"], states[0]["side.weight"])


def test_compiling_leaves_the_random_state_alone() -> None:
    base = TINY["chain"]()
    before = torch.get_rng_state()
    compile_recipe(recipe(add=REGION), base=base, num_classes=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_proof_has_no_numbers_and_an_unloaded_base_has_real_tensors() -> None:
    named = Recipe.model_validate({"base": {"model": "digits_net"}})
    assert all(tensor.is_meta for tensor in prove_recipe(named).state_dict().values())
    opened = open_base(named, load=False)
    empty = compile_opened(named, opened, 3)
    assert not any(tensor.is_meta for tensor in copy.deepcopy(empty).state_dict().values())
