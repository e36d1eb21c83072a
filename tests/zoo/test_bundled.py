"""The bundled base: its file is the one that was measured, and it can be cut where it says."""

from __future__ import annotations

import pytest
import torch

from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.finding import UnknownRunError
from tlcompile.errors.graph import UnknownStageError
from tlcompile.errors.weights import RandomFrozenError, UnknownModelError, UnknownWeightsError
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo import bundled
from tlcompile.zoo.files import read_tensors


def digits(**sections: object) -> Recipe:
    return Recipe.model_validate({"base": {"model": "digits_net"}, **sections})


def test_its_file_is_loaded_to_the_last_byte() -> None:
    tensors = read_tensors(str(bundled.WEIGHTS["DIGITS_0_TO_4_V1"]))
    state = bundled.open_bundled("default", 0).module.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in state.items())
    assert torch.isfinite(torch.cat([t.flatten().float() for t in tensors.values()])).all()


@pytest.mark.parametrize(
    ("point", "vertex"), [("stage1", "block2.pool"), ("stage2", "flatten"), ("head", "flatten")]
)
def test_it_can_be_cut(point: str, vertex: str) -> None:
    model = compile_recipe(digits(freeze={"upto": [point]}), num_classes=10).eval()
    assert [one.vertex for one in model.boundary] == [vertex]
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(model.suffix(*model.prefix(x)), model(x))
    assert model(x).shape == (2, 10)


def test_what_it_does_not_have() -> None:
    with pytest.raises(UnknownStageError, match="no stage3"):
        compile_recipe(digits(freeze={"upto": ["stage3"]}))
    wrong = Recipe.model_validate({"base": {"model": "digits_net", "weights": "DIGITS_V2"}})
    with pytest.raises(UnknownWeightsError, match="DIGITS_0_TO_4_V1"):
        compile_recipe(wrong)
    with pytest.raises(UnknownModelError, match="digits_net"):
        compile_recipe(Recipe.model_validate({"base": {"model": "digit_net"}}))
    with pytest.raises(UnknownRunError):
        compile_recipe(Recipe.model_validate({"base": {"run": "runs/a"}}))


@pytest.mark.parametrize("freeze", [{"upto": ["head"]}, {"upto": ["none"], "only": ["stem"]}])
def test_random_weights_cannot_be_frozen(freeze: dict[str, object]) -> None:
    base = {"model": "digits_net", "weights": "none"}
    with pytest.raises(RandomFrozenError):
        compile_recipe(Recipe.model_validate({"base": base, "freeze": freeze}))
    free = Recipe.model_validate({"base": base, "freeze": {"upto": ["none"]}})
    weights = [
        compile_recipe(free, num_classes=2).get_parameter("stem.conv.weight") for _ in range(2)
    ]
    assert torch.equal(*weights)


def test_wrong_weights_are_refused_without_loading_any() -> None:
    wrong = Recipe.model_validate({"base": {"model": "digits_net", "weights": "DIGITS_V2"}})
    with pytest.raises(UnknownWeightsError):
        prove_recipe(wrong)


def test_size_without_effect_is_refused() -> None:
    sized = Recipe.model_validate({"base": {"model": "digits_net", "size": 16}})
    with pytest.raises(NoEffectError, match=r"base\.size has no effect"):
        prove_recipe(sized)
