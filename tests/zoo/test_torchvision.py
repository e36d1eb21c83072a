"""torchvision's models: structure as the weights' name says, tensors from files, nothing executed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model_weights, squeezenet1_1

from tlcompile.compiler import compile_recipe
from tlcompile.errors.weights import (
    UnknownWeightsError,
    WeightsFileError,
    WeightsMismatchError,
)
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.torchvision import model_names, open_torchvision

NAME = "squeezenet1_1"  # 5 MB


def children(name: str, weights: str) -> list[str]:
    opened = open_torchvision(name, weights, None, load=False)
    return [child for child, module in opened.module.named_children() if module is not None]


def test_structure_follows_the_weights_name() -> None:
    assert "aux1" not in children("googlenet", "default")
    assert "aux_classifier" in children("fcn_resnet50", "default")
    assert "aux_classifier" not in children("fcn_resnet50", "none")
    swag = open_torchvision("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", None, load=False)
    assert swag.sample_shape == (3, 384, 384)
    assert swag.module.get_parameter("encoder.pos_embedding").shape == (1, 577, 768)


def test_shapes_of_segmentation_and_of_a_given_size() -> None:
    assert open_torchvision("fcn_resnet50", "default", None, load=False).sample_shape == (
        3,
        520,
        520,
    )
    assert open_torchvision(NAME, "default", 96, load=False).sample_shape == (3, 96, 96)


def test_unknown_weights() -> None:
    with pytest.raises(UnknownWeightsError, match="did you mean 'IMAGENET1K_V1'"):
        open_torchvision(NAME, "IMAGENET_V1", None, load=True)


def open_file(path: Path) -> nn.Module:
    return open_torchvision(NAME, str(path), None, load=True).module


@pytest.mark.parametrize("ending", ["safetensors", "pth", "wrapped.pth"])
def test_weights_from_a_file(tmp_path: Path, ending: str) -> None:
    state = squeezenet1_1().state_dict()
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state} if "wrapped" in ending else state, path)
    loaded = open_file(path).state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    recipe = Recipe.model_validate({"base": {"model": NAME, "weights": str(path)}})
    compiled = compile_recipe(recipe, num_classes=2).state_dict()
    assert torch.equal(compiled["features.0.weight"], state["features.0.weight"])


def test_another_model_s_file(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = squeezenet1_1(num_classes=7).state_dict()
    state["extra"] = state.pop("features.0.bias")
    save_file(state, path)
    with pytest.raises(WeightsMismatchError) as caught:
        open_file(path)
    assert caught.value.missing == ("features.0.bias",)
    assert caught.value.unexpected == ("extra",)
    both = "(7, 512, 1, 1) in the file, (1000, 512, 1, 1) in the model"
    assert f"classifier.1.weight: {both}" in caught.value.shapes


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing"])
def test_a_file_that_cannot_be_read(tmp_path: Path, ending: str, damage: str) -> None:
    path = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file({"a": torch.ones(100)}, path)
    else:
        torch.save({"a": torch.ones(100)}, path)
    content = {"truncated": path.read_bytes()[:-50], "empty": b"", "text": b"hello there, file"}
    if damage == "missing":
        path = tmp_path / f"weight.{ending}"
    else:
        path.write_bytes(content[damage])
    with pytest.raises(WeightsFileError) as caught:
        open_file(path)
    assert damage != "missing" or "did you mean" in str(caught.value)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, plain: bool) -> None:
    witness, path = tmp_path / "witness", tmp_path / "weights.pth"
    if plain:
        path.write_bytes(pickle.dumps({"a": Runs(witness)}))
    else:
        torch.save({"a": Runs(witness)}, path)
    with pytest.raises(WeightsFileError):
        open_file(path)
    assert not witness.exists()


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save([1, 2, 3], path)
    with pytest.raises(WeightsFileError, match="something else"):
        open_file(path)


@pytest.mark.parametrize("name", ["empty.pth", "empty.safetensors"])
def test_a_file_without_tensors_is_no_weights(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if file.suffix == ".pth":
        torch.save({}, file)
    else:
        save_file({}, file)
    with pytest.raises(WeightsFileError, match="no tensor"):
        open_torchvision("squeezenet1_0", str(file), 64, load=True)


ENTRIES = [(name, entry.name) for name in model_names() for entry in get_model_weights(name)]


def test_there_are_weights_to_build_for() -> None:
    assert len({name for name, _ in ENTRIES}) == len(model_names()) == 107
    assert len(ENTRIES) > 107


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weights"), ENTRIES)
def test_it_is_built_as_the_weights_would_build_it(name: str, weights: str) -> None:
    opened = open_torchvision(name, weights, None, load=False)
    stated = get_model_weights(name)[weights].meta["num_params"]
    # The auxiliary heads that the weights' own loading takes away are not counted in num_params.
    assert sum(p.numel() for p in opened.module.parameters()) == stated
    assert opened.native_shape == opened.sample_shape
    assert not opened.loaded
