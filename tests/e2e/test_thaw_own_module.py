"""A base that was a run of one's own module, on one's own pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor, nn

from tlcompile.bundle import load_bundle
from tlcompile.compiler import compile_recipe
from tlcompile.errors.ancestry import OtherClassesError, OwnModuleRunError
from tlcompile.errors.data import DataError
from tlcompile.recipe.load import load_recipe
from tlcompile.run.cli import main
from tlcompile.run.train import RunResult, train_recipe


def written(text: str) -> Path:
    Path("thaw.yaml").write_text(text)
    return Path("thaw.yaml")


def pictures_run(place: Path, module: nn.Module | None = None) -> RunResult:
    recipe = make_recipe(
        base={"model": "digits_net", "size": 16},
        data={"folder": str(place / "pictures"), "classes": ["bees", "ants"]},
        fine_tune={"epochs": 1, "batch_size": 4},
    )
    return train_recipe(recipe, place / "runs" / "own-1", base=module or TinyNet())


def test_the_order_of_the_classes_is_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "pictures", side=20)
    pictures_run(tmp_path)
    make_pictures(tmp_path / "more", side=20)
    recipe = load_recipe(written("base: {run: runs/own}\ndata: more\nfine_tune: {epochs: 1}\n"))
    result = train_recipe(recipe, tmp_path / "runs" / "second", base=TinyNet())
    assert result.record["classes"] == ["bees", "ants"]
    turned = load_recipe("thaw.yaml", ["data.classes=[ants,bees]"])
    with pytest.raises(OtherClassesError, match="command line:1:"):
        train_recipe(turned, tmp_path / "runs" / "third", base=TinyNet())


def test_a_run_of_ones_own_module_wants_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = make_pictures(tmp_path / "pictures", side=20) / "ants" / "0.png"
    first = pictures_run(tmp_path)
    assert main(["predict", "runs/own-1", str(picture)]) == 2
    said = capsys.readouterr().err
    assert "tlcompile.load_bundle('runs/own-1', base=TinyNet())" in said
    path = written("base: {run: runs/own}\nfreeze: {upto: conv1}\nfine_tune: {epochs: 1}\n")
    assert main(["check", str(path)]) == 2
    assert re.search(r"^thaw\.yaml:1:13: .*\[own-module\]", capsys.readouterr().err, re.M)
    recipe = load_recipe(path)
    with pytest.raises(OwnModuleRunError):
        compile_recipe(recipe)
    images = torch.randn(3, 3, 16, 16)
    own = compile_recipe(recipe, base=TinyNet()).eval()
    with torch.no_grad():
        assert torch.equal(own(images), first.model(images))
    again = train_recipe(recipe, tmp_path / "runs" / "second", base=TinyNet())
    bundle = load_bundle("runs/second", base=TinyNet())
    with torch.no_grad():
        assert torch.equal(bundle.model(images), again.model(images))
    with pytest.raises(OwnModuleRunError):
        load_bundle("runs/second")


class Hiding(TinyNet):
    """Its layers have names that a compiled model uses for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.summary, self.frozen = self.fc, self.conv1
        del self.fc, self.conv1

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.bn1(self.frozen(x)).relu())).relu()
        return self.summary(self.dropout(self.flatten(self.pool(x))))


def test_no_name_of_a_layer_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "pictures", side=20)
    first = pictures_run(tmp_path, Hiding())
    again = compile_recipe(load_recipe(written("base: {run: runs/own}\n")), base=Hiding())
    ours, theirs = again.state_dict(), first.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_inherited_data_that_are_gone_are_said_at_base_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = make_pictures(tmp_path / "pictures", side=20)
    pictures_run(tmp_path)
    pictures.rename(tmp_path / "elsewhere")
    recipe = load_recipe(written("base: {run: runs/own}\nfine_tune: {epochs: 1}\n"))
    with pytest.raises(DataError, match=r"^thaw\.yaml:1:13: there is no folder"):
        train_recipe(recipe, tmp_path / "runs" / "second", base=TinyNet())
