"""`run.sharding: full`: what the plan tells of it, where it is refused, and whole runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import make_recipe
from torch import Tensor, nn

from tlcompile.compiler import prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.devices import device_notes
from tlcompile.run.refuse import refuse_untrainable
from tlcompile.run.refuse_sharding import refuse_idle_sharding
from tlcompile.training.ranks import ALONE, Ranks

RECIPE = "base: {model: digits_net}\ndata: {dataset: digits}\n"


@pytest.fixture(autouse=True)
def _outside_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def recipe_of(**sections: Any) -> Recipe:
    run = {"devices": 2, "sharding": "full", **sections.pop("run", {})}
    return make_recipe(run=run, data={"dataset": "digits"}, **sections)


def refused(recipe: Recipe, model: CompiledModel | None = None) -> str:
    with pytest.raises(TLCompileError) as caught:
        refuse_untrainable(recipe, model or prove_recipe(recipe, num_classes=10), 10)
    return str(caught.value)


def test_it_is_taken_with_several_devices() -> None:
    recipe = recipe_of()
    refuse_untrainable(recipe, prove_recipe(recipe, num_classes=10), 10)
    refuse_idle_sharding(recipe, Ranks(1, 2))


def test_one_device_cuts_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(f"{RECIPE}run:\n  sharding: full\n")
    recipe = load_recipe("small.yaml", [])
    told = refused(recipe)
    assert "small.yaml:5:3: run.sharding: full has no effect" in told
    assert "run.devices=2" in told
    with pytest.raises(NoEffectError, match="one cpu device"):  # as `auto` may find it
        refuse_idle_sharding(recipe_of(run={"devices": "auto", "device": "cpu"}), ALONE)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"run": {"compile": True}}, "run.compile with run.sharding: full"),
        ({"run": {"micro_batch": 2}}, "fine_tune.accumulate"),
        ({"fine_tune": {"optimizer": {"name": "adafactor"}}}, "write name: adamw"),
        ({"fine_tune": {"optimizer": {"name": "muon"}}}, "write name: adamw"),
    ],
)
def test_what_it_cannot_do_is_refused(sections: dict[str, Any], told: str) -> None:
    assert told in refused(recipe_of(**sections))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.scale = nn.Linear(64, 10), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * self.scale


def test_a_single_number_cannot_be_cut() -> None:
    recipe = recipe_of(freeze="none", head="keep")
    model = prove_recipe(recipe, Scaled(), num_classes=10)
    assert "'scale'" in refused(recipe, model)


def test_the_plan_tells_what_each_device_has() -> None:
    recipe = recipe_of()
    model = prove_recipe(recipe, num_classes=10)
    assert any("are cut over the devices" in note for note in device_notes(recipe, [model]))
    other = recipe_of(run={"sharding": "none"})
    assert not any("are cut" in note for note in device_notes(other, [model]))
