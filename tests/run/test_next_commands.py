"""What a run prints to type next does what its comment says, whatever the recipe has."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tiny import make_recipe

from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.scalars import to_yaml
from tlcompile.run.folder import resolved
from tlcompile.run.prove import compile_phases, refuse_unfit
from tlcompile.run.single import next_commands

PHASES = [
    {"name": "a", "freeze": "block2", "epochs": 1, "lr": 1e-2},
    {"name": "b", "freeze": "block1", "epochs": 1, "lr": 1e-3},
]


@pytest.mark.parametrize("tune", [{"epochs": 1}, {"phases": PHASES}], ids=["alone", "phases"])
def test_train_every_layer_trains_every_layer(tmp_path: Path, tune: dict[str, object]) -> None:
    recipe = make_recipe(freeze="head", data={"dataset": "digits"}, fine_tune=tune)
    (tmp_path / "recipe.yaml").write_text(to_yaml(resolved(recipe)))
    told = next(
        line for line in next_commands(recipe, tmp_path, thaw=True) if "freeze=none" in line
    )
    command, _, why = told.strip().partition("  # ")
    assert why == "train every layer"
    _tlcompile, _train, path, *overrides = shlex.split(command)
    again = load_recipe(path, overrides)
    proof = compile_phases(again, None)
    refuse_unfit(proof)
    assert not proof.model.frozen.tensors
    assert proof.later == ()
    assert again.fine_tune.optimizer.lr == 1e-4
