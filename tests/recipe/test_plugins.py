"""A user's own layer: an installed package, allowed by name on the command line, else refused."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from recipe.many_shapes import INPUTS, compiled

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.layers import BadPluginError, PluginNotInstalledError
from tlcompile.recipe.layers.plugins import allow_plugins, allowed_plugins
from tlcompile.recipe.load import load_recipe
from tlcompile.run.cli import main
from tlcompile.run.folder import resolved

CODE = """
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from tlcompile.recipe.fields import NotNegative
from tlcompile.recipe.layers.base import Call, Layer


class Snake(nn.Module):
    def __init__(self, width, alpha):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((width,), alpha))

    def forward(self, input):
        return input + torch.sin(self.alpha * input) ** 2


class SnakeLayer(Layer):
    "x + sin(alpha x) squared, with a learned alpha for each feature."

    layer: Literal["snake"]
    alpha: NotNegative = Field(1.0, description="Alpha at the start.")

    def call(self, shapes, classes):
        kwargs = {"width": shapes[0][0], "alpha": self.alpha}
        return Call("acme_layers.Snake", kwargs, factory=Snake)


class Odd(SnakeLayer):
    layer: Literal["odder"]
"""

POINTS = """[tlcompile.layers]
snake = acme_layers:SnakeLayer
odd = acme_layers:Odd
text = acme_layers:Snake
module = acme_layers:nn
"""

RECIPE = """\
base: digits_net
freeze: block1
remove: {fc: replace}
add:
  wave: {layer: snake, alpha: 0.5, inputs: flatten}
  fc: {layer: linear, out: classes, inputs: wave}
data: {dataset: digits, classes: ["5", "6"], per_class: 4}
fine_tune: {epochs: 1}
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution `acme-layers 1.2.3` on the path; what it does to this process is undone."""
    site = tmp_path / "site"
    info = site / "acme_layers-1.2.3.dist-info"
    info.mkdir(parents=True)
    (site / "acme_layers.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-layers\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    yield tmp_path
    allow_plugins([])
    sys.modules.pop("acme_layers", None)


def test_an_allowed_plugin_is_a_layer_like_any_other(acme: Path) -> None:
    allow_plugins(["snake"])
    model = compiled({"layer": "snake", "alpha": 0.5}, ["vector"]).eval()
    x = torch.randn(3, 3, 6, 6)
    vector = INPUTS["vector"](model, x)
    assert torch.equal(model(x), vector + torch.sin(0.5 * vector) ** 2)
    assert model.origins["new.alpha"] == "added"
    assert torch.equal(model.suffix(*model.prefix(x)), model(x))
    (one,) = allowed_plugins().values()
    assert (one.name, one.package, one.version) == ("snake", "acme-layers", "1.2.3")


def test_a_plugin_that_is_not_allowed_names_the_flag_and_runs_nothing(acme: Path) -> None:
    with pytest.raises(TLCompileError) as caught:
        load_recipe("r.yaml")
    assert str(caught.value).startswith("r.yaml:5:")
    assert "add --allow-plugin snake" in str(caught.value)
    assert "acme-layers" in str(caught.value)
    assert "acme_layers" not in sys.modules


def test_allowing_again_forgets_what_was_allowed(acme: Path) -> None:
    allow_plugins(["snake"])
    allow_plugins([])
    with pytest.raises(TLCompileError, match="--allow-plugin snake"):
        load_recipe("r.yaml")


def test_a_plugin_that_is_not_installed_is_said_to_be(acme: Path) -> None:
    with pytest.raises(PluginNotInstalledError, match="did you mean 'snake'"):
        allow_plugins(["snak"])


@pytest.mark.parametrize(
    ("name", "word"),
    [("odd", "Literal['odd']"), ("text", "no Layer"), ("module", "AttributeError")],
)
def test_what_is_no_layer_type_is_refused(acme: Path, name: str, word: str) -> None:
    if name == "module":
        (acme / "site" / "acme_layers.py").write_text("nothing = 1\n")
    with pytest.raises(BadPluginError) as caught:
        allow_plugins([name])
    assert word in str(caught.value)
    assert "acme-layers" in str(caught.value)


def test_two_packages_of_one_word_are_refused(acme: Path) -> None:
    other = acme / "site" / "rival-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1\n")
    (other / "entry_points.txt").write_text(POINTS)
    with pytest.raises(BadPluginError, match="acme-layers and rival"):
        allow_plugins(["snake"])


def test_a_plugins_settings_are_checked_where_they_stand(acme: Path) -> None:
    allow_plugins(["snake"])
    (acme / "r.yaml").write_text(RECIPE.replace("0.5", "-1"))
    with pytest.raises(TLCompileError) as caught:
        load_recipe("r.yaml")
    assert str(caught.value).startswith("r.yaml:5:31: add.wave.alpha cannot be -1")


def test_a_plugins_settings_are_in_the_resolved_recipe(acme: Path) -> None:
    allow_plugins(["snake"])
    assert resolved(load_recipe("r.yaml"))["add"]["wave"]["alpha"] == 0.5


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_the_command_line_allows(acme: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "r.yaml"]) == 2
    assert "--allow-plugin snake" in capsys.readouterr().err
    assert main([verb, "r.yaml", "--allow-plugin", "snake"]) == 0
    assert main([verb, "--allow-plugin=snake", "r.yaml"]) == 0
    assert main([verb, "r.yaml"]) == 2, "of one command, not of the process"


def test_a_run_records_the_package_and_its_bundle_asks_again(
    acme: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "r.yaml", "fine_tune.seed=1", "--allow-plugin", "snake"]) == 0
    (folder,) = (acme / "runs").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["plugins"] == {"snake": "acme-layers 1.2.3"}
    capsys.readouterr()
    assert main(["evaluate", str(folder)]) == 2
    assert "add --allow-plugin snake" in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--allow-plugin", "snake"]) == 0
    with (folder / "metrics.csv").open() as lines:
        assert len(list(csv.reader(lines))) == 2
