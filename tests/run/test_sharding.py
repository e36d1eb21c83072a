"""`run.sharding: full`: what the plan tells of it, where it is refused, and whole runs."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import make_recipe
from torch import Tensor, nn

from run import rank_runs
from run.rank_runs import difference, end, folder, same, start, until, weights
from tlcompile.bundle import load_bundle
from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.devices import device_notes
from tlcompile.run.refuse import refuse_untrainable
from tlcompile.run.refuse_sharding import refuse_idle_sharding
from tlcompile.run.saving import Saving
from tlcompile.training.loop import EpochDone
from tlcompile.training.metrics import Score
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.state import EpochRow

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


def test_one_device_cuts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(f"{RECIPE}run:\n  sharding: full\n")
    recipe = load_recipe("small.yaml", [])
    told = refused(recipe)
    assert "small.yaml:4:13: run.sharding: full has no effect" in told
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
        self.fc, self.scale = nn.Linear(192, 10), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * self.scale


def test_a_single_number_cannot_be_cut() -> None:
    recipe = recipe_of(base={"model": "digits_net", "size": 8}, freeze="none", head="keep")
    model = compile_recipe(recipe, Scaled())
    assert "'scale'" in refused(recipe, model)


def test_the_plan_tells_what_each_device_has() -> None:
    recipe = recipe_of()
    model = prove_recipe(recipe, num_classes=10)
    assert any("are cut over the devices" in note for note in device_notes(recipe, [model]))
    other = recipe_of(run={"sharding": "none"})
    assert not any("are cut" in note for note in device_notes(other, [model]))


def test_best_weights_wait_where_whole_tensors_do(tmp_path: Path) -> None:
    """Statistics of norms are not cut: they came from the device, and were compared with the CPU's."""
    home = torch.device("meta")
    phases: Any = SimpleNamespace(home=home, restores_best=bool, state=SimpleNamespace(phase=1))
    saving = Saving(tmp_path, phases, {}, print)
    score = Score(1, 0.5, {"accuracy": 1.0})
    row = EpochRow(1, "main", score, score, 0.1, 1.0)
    saving.note_best(EpochDone(row, True, True, {"norm.running_mean": torch.ones(2)}))
    for kept in (saving.best, saving.phase_best):
        assert kept is not None
        assert kept["norm.running_mean"].device == home


# Whole runs


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(rank_runs.RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def unsharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Return what two devices learn that have the whole model each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("unsharded"))
        Path("small.yaml").write_text(rank_runs.RECIPE)
        end(start("small.yaml", "run.devices=2"))
        return weights(folder())


SHARDED = ("small.yaml", "run.devices=2", "run.sharding=full")


@pytest.mark.slow
def test_a_sharded_run_is_a_run_as_any_other(small: Path, unsharded: dict[str, Tensor]) -> None:
    """Its files are whole: they are used on one device, by those who know nothing of shards."""
    said, _ = end(start(*SHARDED))
    assert "are cut over the devices" in " ".join(said.split())
    assert difference(weights(folder()), unsharded) <= 1e-6
    assert not list(folder().glob("checkpoints*/*"))
    model = load_bundle(folder()).model
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


ADAMW = ("fine_tune.optimizer.name=adamw", "~fine_tune.optimizer.momentum",
         "fine_tune.average.ema=0.9", "fine_tune.clip=0.5")  # fmt: skip


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Return what a sharded run learns that nothing happens to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("straight"))
        Path("small.yaml").write_text(rank_runs.RECIPE)
        end(start(*SHARDED, *ADAMW))
        return weights(folder())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "told"),
    [
        ("kill:0:7", "rank 0 of 2 was killed by SIGKILL"),
        ("crash:1:7", "rank 1 of 2 failed unexpectedly"),
        ("nan:1:7", "not-finite"),
    ],
)
def test_a_sharded_run_that_ends_goes_on_equal_to_the_bit(
    small: Path, straight: dict[str, Tensor], sabotage: str, told: str
) -> None:
    _, errors = end(start(*SHARDED, *ADAMW, sabotage=sabotage), 1)
    assert told in errors
    assert errors.count("fix  ") == 1, "one message"
    again, _ = end(start(*SHARDED, *ADAMW))
    assert "resumed" in again
    assert same(weights(folder()), straight)


@pytest.mark.slow
def test_a_sharded_run_that_is_stopped_in_an_epoch_goes_on_equal_to_the_bit(
    small: Path, straight: dict[str, Tensor]
) -> None:
    """Its file gives each rank the tensors in another order; they gather them in one."""
    process = start(*SHARDED, *ADAMW, sabotage="slow:0:0")
    until(lambda: Path("steps").exists() and int(Path("steps").read_text() or 0) >= 7)
    process.send_signal(signal.SIGTERM)
    _, errors = end(process, 143)
    assert errors.count("fix  ") == 1
    again, _ = end(start(*SHARDED, *ADAMW))
    assert "resumed" in again
    assert same(weights(folder()), straight)


@pytest.mark.slow
def test_a_sharded_run_goes_on_unsharded_where_other_bits_are_accepted(
    small: Path, unsharded: dict[str, Tensor]
) -> None:
    end(start(*SHARDED, sabotage="kill:1:7"), 1)
    _, errors = end(start("small.yaml", "run.devices=2"), 1)
    assert "run sharding: full, now none" in errors
    again, _ = end(start("small.yaml", "run.devices=2", "--inexact"))
    assert "resumed" in again
    assert difference(weights(folder()), unsharded) <= 1e-6
