"""A region that a run added (conv, norm, activation): each of its vertices can be named afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tlcompile.compiler import compile_recipe, compile_together
from tlcompile.features.fingerprint import describe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import load_recipe
from tlcompile.run.folder import run_folder
from tlcompile.run.train import train_recipe
from tlcompile.zoo.open import open_base

FIRST = """\
name: first
base: {model: digits_net}
freeze: {upto: block1}
add:
  c: {layer: conv2d, out: 12, kernel: 1, inputs: block3, feeds: flatten, norm: batch, activation: relu}
data: {dataset: digits, classes: ["5", "6"], per_class: 4, split: {val: 0.5, seed: 3}}
fine_tune: {epochs: 1, batch_size: 4}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("region")
    (folder / "first.yaml").write_text(FIRST)
    recipe = load_recipe(folder / "first.yaml")
    train_recipe(recipe, folder / run_folder(recipe))
    return folder


def again(place: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> CompiledModel:
    monkeypatch.chdir(place)
    Path("again.yaml").write_text(f"base: {{run: runs/first}}\n{lines}\n")
    return compile_recipe(load_recipe("again.yaml"))


def test_freezing_up_to_its_convolution_leaves_its_norm_awake(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = again(place, monkeypatch, "freeze: c.conv2d").train()
    assert "c.weight" in model.frozen.tensors
    assert not any(name.startswith("c.norm.") for name in model.frozen.tensors)
    assert not model.tree.get_submodule("c").training
    assert model.tree.get_submodule("c.norm").training
    before = model.state_dict()["c.norm.running_mean"].clone()
    model(torch.randn(4, 1, 8, 8))
    assert not torch.equal(model.state_dict()["c.norm.running_mean"], before)


def test_its_norm_can_be_frozen_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = again(place, monkeypatch, "freeze: {only: c.norm}").train()
    assert {n for n in model.frozen.tensors if n.startswith("c.")} == {
        f"c.norm.{name}" for name, _ in nn.BatchNorm2d(1).state_dict().items()
    }
    assert not model.tree.get_submodule("c.norm").training


def test_it_can_be_resized(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = again(place, monkeypatch, "freeze: block1").state_dict()
    lines = "freeze: block1\nresize: {c.conv2d: {out: 20, overlap: true}}"
    model = again(place, monkeypatch, lines).eval()
    state = model.state_dict()
    assert state["c.weight"].shape[0] == state["c.norm.weight"].shape[0] == 20
    for name in ("c.weight", "c.bias", "c.norm.weight", "c.norm.running_mean"):
        assert torch.equal(state[name][:12], kept[name])
    assert model(torch.randn(3, 1, 8, 8)).shape == (3, 2)


def test_its_convolution_has_one_key_whatever_is_frozen_behind_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that rows that are computed on the way to a later freeze point are found again."""
    alone = again(place, monkeypatch, "freeze: c.conv2d")
    recipes = [load_recipe("again.yaml")]
    again(place, monkeypatch, "freeze: c")
    recipes.append(load_recipe("again.yaml"))
    together = compile_together(recipes, open_base(recipes[0]), 2)
    assert together.frozen.awake < alone.frozen.awake
    (wanted,), found = (keys_of(model) for model in (alone, together))
    assert wanted in found
    assert len(found) == 2


def keys_of(model: CompiledModel) -> list[str]:
    cpu = torch.device("cpu")
    abouts = describe(model, preprocessing=None, chunk_size=4, precision="exact", device=cpu)
    return [about.key for about in abouts]
