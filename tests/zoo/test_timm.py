"""timm's models: structure and preprocessing as timm says, tensors from files, one error without it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from graph.tiny import recipe

from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.zoo.open import all_model_names
from tlcompile.zoo.timm import open_timm

SMALL = "timm/test_resnet"  # timm's own small network for tests
wants_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="the extra 'timm' is not installed"
)


def test_without_timm_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TLCompileError, match=r"pip install 'tlcompile\[timm\]'") as caught:
        prove_recipe(recipe(base={"model": "timm/resnet18"}))
    assert caught.value.slug == "not-installed"
    assert all_model_names("timm/") == []


@wants_timm
@pytest.mark.parametrize(
    "name", [SMALL, "timm/ghostnet_050", "timm/convit_tiny", "timm/crossvit_9_240"]
)
def test_compiled_without_edits_is_the_original(name: str) -> None:
    import timm

    module = timm.create_model(name.removeprefix("timm/")).eval()
    _, side, _ = timm.get_pretrained_cfg(name.removeprefix("timm/")).input_size
    wanted = recipe(base={"model": name, "size": side}, head="keep", freeze="none")
    compiled = compile_recipe(wanted, base=module)
    assert list(compiled.state_dict()) == list(module.state_dict())
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(compiled.eval()(x), module(x))
        torch.manual_seed(0)
        theirs = module.train()(x)
        torch.manual_seed(0)
        assert torch.equal(compiled.train()(x), theirs)


@wants_timm
def test_weights_from_a_file_go_through_timms_own_loading(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    state = timm.create_model("test_resnet").state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    wanted = recipe(base={"model": SMALL, "weights": str(path)}, freeze="head")
    model = compile_recipe(wanted, num_classes=3)
    same = [name for name, tensor in model.state_dict().items() if torch.equal(tensor, state[name])]
    assert set(state) - set(same) == {"fc.weight", "fc.bias"}


@wants_timm
def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(TLCompileError) as caught:
        open_timm(SMALL, str(path), None, load=True)
    assert caught.value.slug == "weights-mismatch"


@wants_timm
def test_preprocessing_and_structure_are_the_weights() -> None:
    found = open_timm("timm/vit_base_patch16_224", "augreg_in21k", None, load=False)
    assert found.module.get_parameter("head.weight").shape[0] == 21843
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert (found.preprocessing.resize, found.preprocessing.crop) == (248, 224)
    assert found.preprocessing.interpolation == "bicubic"


@wants_timm
def test_a_size_that_is_built_in_is_built_in() -> None:
    found = open_timm("timm/vit_tiny_patch16_224", "default", 96, load=False)
    assert found.module.get_parameter("pos_embed").shape == (1, 37, 192)
    assert found.sample_shape == found.native_shape == (3, 96, 96)


@wants_timm
@pytest.mark.parametrize(
    ("name", "weights", "slug"),
    [
        ("timm/resnet_18", "default", "unknown-model"),
        ("timm/resnet18.a1_in1k", "default", "unknown-model"),
        ("timm/resnet18", "a7_in1k", "unknown-weights"),
    ],
)
def test_names_that_timm_does_not_have(name: str, weights: str, slug: str) -> None:
    with pytest.raises(TLCompileError) as caught:
        prove_recipe(recipe(base={"model": name, "weights": weights}))
    assert caught.value.slug == slug
    assert "did you mean" in str(caught.value) or slug == "unknown-weights"
