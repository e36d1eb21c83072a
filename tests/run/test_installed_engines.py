"""Hydra's own launchers and Optuna, where they are installed: three points on digits each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import DIGITS, NAMES, POINTS, rows, train, weights

from tlcompile.run import isolated
from tlcompile.run.sweep import train_recipe

UP = "hydra.sweeper.direction=maximize"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("d.yaml").write_text(DIGITS)
    return tmp_path


def installed(plugin: str) -> Any:
    here = importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    return pytest.mark.skipif(not here, reason=f"{plugin} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["sweep.engine=joblib", "hydra.launcher.n_jobs=2"], id="joblib",
                     marks=installed("hydra_joblib_launcher")),
        pytest.param(["sweep.engine=submitit", "hydra/launcher=submitit_local"], id="submitit",
                     marks=installed("hydra_submitit_launcher")),
        pytest.param(["sweep.engine=ray"], id="ray", marks=installed("hydra_ray_launcher")),
    ],
)  # fmt: skip
@pytest.mark.network  # Ray and submitit talk to processes of their own
@pytest.mark.filterwarnings("ignore")
def test_three_points_by_an_engine(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(isolated.__file__).parents[2]))
    train(POINTS, *words, "output_dir=there")
    train(POINTS, "sweep.isolate=true", "output_dir=here")
    assert [row["state"] for row in rows("there")] == ["finished"] * 3
    for name in NAMES:
        assert weights("there", name) == weights("here", name)


@pytest.mark.slow
@installed("hydra_optuna_sweeper")
@pytest.mark.filterwarnings("ignore")
def test_three_trials_of_optuna(capfd: pytest.CaptureFixture[str]) -> None:
    search = ("fine_tune.optimizer.lr=interval(1e-4,1e-2)", "hydra/sweeper=optuna", UP,
              "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=1")  # fmt: skip
    train(*search)
    first = rows()
    assert [row["state"] for row in first] == ["finished"] * 3
    train(*search)
    assert rows() == first
    assert capfd.readouterr().out.count("finished before") == 3


@pytest.mark.slow
@installed("hydra_optuna_sweeper")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("all_fail", [False, True])
def test_failed_trials_do_not_end_optuna(all_fail: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def fail(recipe: Any, folder: Path, **how: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2 or all_fail:
            raise RuntimeError("no luck")
        return train_recipe(recipe, folder, **how)

    monkeypatch.setattr("tlcompile.run.sweep.train_recipe", fail)
    search = ("fine_tune.optimizer.lr=interval(1e-4,1e-2)", "hydra/sweeper=optuna", UP)
    train(*search, "hydra.sweeper.n_trials=4", "sweep.fuse=off", code=1)
    states = [row["state"] for row in rows()]
    assert len(states) == 4
    assert states.count("failed") == (4 if all_fail else 1)
