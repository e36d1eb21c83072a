"""Best epochs by the wrong metric or direction: pain point 24, and what a task is told by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.errors.training import UnknownMetricError
from tlcompile.run.train import RunResult, train_recipe

TUNE: dict[str, Any] = {
    "epochs": 5, "batch_size": 4, "schedule": "constant",
    "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9},  # restless, so that epochs differ
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("ants", "bees", "wasps")
    return make_pictures(tmp_path_factory.mktemp("data") / "p", names, count=5, side=12)


def run(folder: Path, pictures: Path, **tune: Any) -> RunResult:
    recipe = make_recipe(
        base={"model": "digits_net", "size": 12}, freeze="none", data={"folder": str(pictures)},
        fine_tune={**TUNE, **tune},
    )  # fmt: skip
    torch.manual_seed(0)
    return train_recipe(recipe, folder, base=TinyNet())


@pytest.mark.parametrize("monitor", ["val/loss", "val/f1", "train/loss", "train/accuracy"])
def test_the_best_epoch_is_best_in_the_direction_of_its_metric(
    tmp_path: Path, pictures: Path, monitor: str
) -> None:
    """cookiecutter-pyml #119 (val_loss with mode max), keras #16734, skorch #399."""
    result = run(tmp_path / "run", pictures, monitor=monitor)
    values = [row.value(monitor) for row in result.history]
    best = min(values) if monitor.endswith("loss") else max(values)
    assert len(set(values)) > 1
    assert result.best.epoch == values.index(best) + 1
    assert result.record["monitor"] == monitor


def test_an_unknown_metric_is_answered_by_what_the_task_logs(
    tmp_path: Path, pictures: Path
) -> None:
    """tensorflow #55580 (a monitor that is never logged), deep_qa #199."""
    with pytest.raises(UnknownMetricError) as caught:
        run(tmp_path / "run", pictures, monitor="val/acuracy")
    assert caught.value.known == (
        "val/loss", "val/accuracy", "val/f1", "train/loss", "train/accuracy"
    )  # fmt: skip
    assert "did you mean 'val/accuracy'?" in str(caught.value)


def test_class_weights_and_focal_losses_change_what_is_learned(
    tmp_path: Path, pictures: Path
) -> None:
    options: list[dict[str, Any]] = [
        {}, {"loss": "focal"}, {"loss": {"name": "focal", "gamma": 0.5}},
        {"class_weights": {"ants": 3.0}},
    ]  # fmt: skip
    base = [
        [row.train.loss for row in run(tmp_path / str(i), pictures, epochs=1, **one).history]
        for i, one in enumerate(options)
    ]
    assert len({tuple(losses) for losses in base}) == 4
    # As many of each class: balanced is not another loss.
    even = run(tmp_path / "even", pictures, epochs=1, class_weights="balanced")
    assert even.history[0].train.loss == pytest.approx(base[0][0], rel=1e-5)
