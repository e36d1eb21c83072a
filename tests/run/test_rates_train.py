"""Rates, groups, schedules and phases of a recipe: what each does to a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor

from tlcompile.errors.base import TLCompileError
from tlcompile.run.train import train_recipe
from tlcompile.training.state import EpochRow

BASE = {"model": "digits_net", "size": 16}
SGD = {"name": "sgd", "lr": 0.1, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=5, side=16)


def train(
    folder: Path, pictures: Path, tune: dict[str, Any], **sections: Any
) -> tuple[list[EpochRow], dict[str, Tensor]]:
    """Train a few steps; return the epochs and the last weights."""
    plain = {"batch_size": 4, "optimizer": SGD, "schedule": "constant"}
    plain |= {} if "phases" in tune else {"epochs": 2}
    sections = {"freeze": "bn1", "data": {"folder": str(pictures)}, **sections}
    recipe = make_recipe(base=BASE, fine_tune={**plain, **tune}, **sections)
    torch.manual_seed(0)
    history = train_recipe(recipe, folder, base=TinyNet()).history
    return history, load_file(folder / "last" / "model.safetensors")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, Tensor]:
    return train(tmp_path_factory.mktemp("plain") / "run", pictures, {})[1]


def differ(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> set[str]:
    return {name for name in ours if not torch.equal(ours[name], theirs[name])}


EFFECTS: dict[str, dict[str, Any]] = {
    "groups": {"groups": {"conv2": {"lr": 0.01}}},
    "group's weight_decay": {"groups": {"conv2": {"weight_decay": 0.0}}},
    "group's optimizer": {"groups": {"conv2": {"optimizer": {"name": "adam"}}}},
    "no_decay": {"no_decay": "norm"},
    "bias_lr_factor": {"bias_lr_factor": 2.0},
    "step": {"schedule": {"name": "step", "every": 1}},
    "warmup": {"schedule": {"name": "constant", "warmup": 0.5}},
    "one_cycle": {"schedule": {"name": "one_cycle"}},
}


@pytest.mark.parametrize("tune", EFFECTS.values(), ids=EFFECTS)
def test_a_setting_changes_the_training(
    tmp_path: Path, pictures: Path, plain: dict[str, Tensor], tune: dict[str, Any]
) -> None:
    assert differ(train(tmp_path / "run", pictures, tune)[1], plain)


def test_a_rate_of_nearly_zero_holds_a_group_where_it_was(
    tmp_path: Path, pictures: Path, plain: dict[str, Tensor]
) -> None:
    start = train(tmp_path / "one", pictures, {"optimizer": {"name": "sgd", "lr": 1e-30}})[1]
    tune = {"groups": {"conv2": {"lr": 1e-30}}}
    held = train(tmp_path / "two", pictures, tune)[1]
    moved = differ(held, start)
    assert not any(name.startswith("conv2") for name in moved)
    assert any(name.startswith("fc") for name in moved)


def test_a_plateau_lowers_the_rate_in_the_epoch_after(tmp_path: Path, pictures: Path) -> None:
    schedule = {"name": "plateau", "patience": 1, "factor": 0.5, "min_delta": 1e3}
    tune = {"epochs": 4, "schedule": schedule, "monitor": "train/loss"}
    history, _ = train(tmp_path / "run", pictures, tune)
    # The first value is a gain on nothing; each later one fails to gain a thousand.
    assert [row.lr for row in history] == pytest.approx([0.1, 0.1, 0.05, 0.025])


PHASES = [
    {"name": "head", "freeze": "head", "epochs": 1},
    {"name": "all", "epochs": 2, "lr": 0.01, "schedule": {"name": "cosine"}, "batch_size": 8},
]


def test_each_phase_has_its_rates_and_its_schedule_from_the_start(
    tmp_path: Path, pictures: Path
) -> None:
    history, _ = train(tmp_path / "run", pictures, {"phases": PHASES})
    assert [row.phase for row in history] == ["head", "all", "all"]
    assert [row.lr for row in history] == pytest.approx([0.1, 0.01, 0.005])


def test_until_ends_a_phase_before_its_epochs(tmp_path: Path, pictures: Path) -> None:
    until = {"plateau": 2, "min_delta": 1e3}
    first = {"name": "head", "freeze": "head", "epochs": 9, "until": until}
    tune = {"phases": [first, PHASES[1]], "monitor": "train/loss"}
    history, _ = train(tmp_path / "run", pictures, tune)
    assert [row.phase for row in history] == ["head"] * 3 + ["all"] * 2


def test_waiting_for_validation_is_refused_before_a_run_without_it(tmp_path: Path) -> None:
    few = make_pictures(tmp_path / "few", count=1, side=16)
    first = {"name": "head", "until": {"plateau": 2}}
    with pytest.raises(TLCompileError, match="until of phase 'head' waits for val/"):
        train(tmp_path / "run", few, {"phases": [first]})
    assert not (tmp_path / "run").exists()
