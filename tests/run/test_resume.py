"""A run that is stopped anywhere, and started again, is the run that was never stopped: to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reliability import training_runs
from reliability.small_runs import ending
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.recipe.schema import Recipe
from tlcompile.run.saving import Saving
from tlcompile.run.train import RunResult, train_recipe


class KilledError(Exception):
    """Stands for a kill behind a save."""


MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
SHAPES: dict[str, dict[str, Any]] = {
    "one phase": training_runs.SHAPES["cached"],
    "phases": training_runs.SHAPES["phases"],
    "all at once, averaged": training_runs.SHAPES["ema"],
    "balanced, plateau": {
        "freeze": "bn1",
        "fine_tune": {
            "epochs": 4,
            "sampling": "balanced",
            "optimizer": MOMENTUM,
            "schedule": {"name": "plateau", "patience": 1},
        },
    },
    "swa": {"freeze": "bn1", "fine_tune": {"epochs": 3, "average": {"swa": {"start": 2}}}},
}

# All that draws, or keeps something between steps, beside the shapes above; they are slow.
MORE: dict[str, dict[str, Any]] = {
    "fp16": {"freeze": "bn1", "fine_tune": {"epochs": 3}, "run": {"precision": "fp16"}},
    "changed features": {
        "freeze": "bn1",
        "features": {"augment": {"noise": 0.1, "dropout": 0.2, "mixup": 0.3}},
        "fine_tune": {"epochs": 3, "accumulate": 2},
    },
    "mixed live images": {
        "freeze": "bn1",
        "features": {"cache": "off"},
        "data": {"mix": {"mixup": 0.3, "cutmix": 1.0}, "augment": {"train": ["horizontal_flip"]}},
        "fine_tune": {"epochs": 3},
    },
    "views, balanced": {
        "freeze": "bn1",
        "features": {"views": 3},
        "data": {"augment": {"train": ["random_resized_crop"]}},
        "fine_tune": {"epochs": 3, "sampling": "balanced"},
    },
    "pieces, mixed, two optimizers": {
        "freeze": "none",
        "data": {"mix": {"mixup": 0.3}},
        "run": {"micro_batch": 3},
        "fine_tune": {
            "epochs": 2,
            "average": {"ema": 0.9, "warmup": True},
            "groups": {"conv1": {"optimizer": MOMENTUM}},
        },
    },
    "phases, averaged": {
        "fine_tune": {
            "phases": training_runs.PHASES,
            "average": {"swa": {"start": 1}},
            "schedule": {"name": "plateau", "patience": 1},
        },
    },
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=7, side=12)


def recipe_of(pictures: Path, shape: str) -> Recipe:
    given = (SHAPES | MORE)[shape]
    tune = {"optimizer": {"name": "adamw", "lr": 0.02}, "batch_size": 4, **given["fine_tune"]}
    return make_recipe(
        base={"model": "digits_net", "size": 8},
        **{
            **given,
            "data": {"folder": str(pictures), **given.get("data", {})},
            "run": {"workers": 0, **given.get("run", {})},
            "fine_tune": tune,
        },
    )


def train(recipe: Recipe, folder: Path, **how: Any) -> RunResult:
    torch.manual_seed(0)
    return train_recipe(recipe, folder, base=TinyNet(), **how)


def count_saves(monkeypatch: pytest.MonkeyPatch, die_behind: int | None) -> list[str]:
    """Save after every step; die behind a save. Return where each save was."""
    saved: list[str] = []
    save = Saving.save

    def counted(self: Saving) -> None:
        save(self)
        state = self.phases.state
        saved.append(f"phase {state.phase}, epoch {state.epoch}, step {state.step}")
        if len(saved) == die_behind:
            raise KilledError

    monkeypatch.setattr(Saving, "save", counted)
    monkeypatch.setattr(Saving, "is_due", lambda _self: True)
    return saved


def whole(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    with monkeypatch.context() as patch:
        saved = count_saves(patch, None)
        train(recipe, folder)
    return saved


def broken(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, behind: int) -> RunResult:
    with monkeypatch.context() as patch:
        count_saves(patch, behind)
        with pytest.raises(KilledError):
            train(recipe, folder)
    torch.manual_seed(behind)  # whoever starts it again has other random numbers
    return train(recipe, folder)


def check(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, shape: str, step: int
) -> None:
    recipe = recipe_of(pictures, shape)
    saved = whole(recipe, tmp_path / "whole", monkeypatch)
    assert len(saved) >= 7
    wanted = ending(tmp_path / "whole")
    places = {*range(1, len(saved) + 1, step)}
    places |= {n + 1 for n, place in enumerate(saved) if place.endswith("epoch 0, step 0")}  # edges
    for behind in sorted(places):
        folder = tmp_path / f"behind{behind}"
        broken(recipe, folder, monkeypatch, behind)
        assert ending(folder) == wanted, f"{shape}: {saved[behind - 1]}"
        assert not (folder / "checkpoints").exists(), "a finished run needs none"


@pytest.mark.parametrize("shape", SHAPES)
def test_stopped_at_some_places_and_every_edge(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    check(tmp_path, pictures, monkeypatch, shape, 7)


@pytest.mark.slow
@pytest.mark.parametrize("shape", MORE)
def test_all_that_draws_is_drawn_again_as_it_was(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    check(tmp_path, pictures, monkeypatch, shape, 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_stopped_behind_every_step(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    check(tmp_path, pictures, monkeypatch, shape, 1)


def test_a_resumed_run_says_where_it_goes_on(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, said = recipe_of(pictures, "phases"), []
    with monkeypatch.context() as patch:
        count_saves(patch, 5)
        with pytest.raises(KilledError):
            train(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "record.json").read_text())["state"] == "running"
    train(recipe, tmp_path / "run", say=said.append)
    assert [line for line in said if line.startswith("resumed")] == [
        f"resumed     phase 1, epoch 2, step 2 ({tmp_path / 'run'})"
    ]
