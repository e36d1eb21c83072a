"""Pain points of sweeps, as they were reported of other tools; the right behaviour here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobStatus
from small_sweeps import DIGITS, POINTS, rows

from tlcompile.run import isolated, sweep
from tlcompile.run.cli import main
from tlcompile.run.launcher import _returned
from tlcompile.run.sweep import train_recipe
from tlcompile.sweep.points import Point


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("d.yaml").write_text(DIGITS)
    return tmp_path


def test_a_failed_point_neither_ends_the_sweep_nor_hides_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """16, hydra 1407, 1463, 1679: one failed job ended a sweep, or its traceback was all that was
    told; hydra 1513, lightning-hydra-template 535, 166: and nothing could be resumed.
    """
    words = ["train", "d.yaml", "-m", POINTS]
    trained: list[str] = []

    def fail_first(recipe: Any, folder: Path, **how: Any) -> Any:
        trained.append(folder.name)
        if len(trained) == 1:
            raise RuntimeError("out of luck")
        return train_recipe(recipe, folder, **how)

    monkeypatch.setattr(sweep, "train_recipe", fail_first)
    assert main(words) == 1
    told = capsys.readouterr()
    assert "1 of 3 points failed" in told.err
    assert "Traceback" not in told.err + told.out
    assert [(row["state"], row["error"]) for row in rows()] == [
        ("failed", "out of luck"), ("finished", ""), ("finished", ""),
    ]  # fmt: skip
    assert main(words) == 0
    assert trained[3:] == ["freeze.upto=stem"], "the same command runs what is missing"
    assert [row["state"] for row in rows()] == ["finished"] * 3


@pytest.mark.parametrize("best", [float("nan"), float("inf"), None])
def test_a_point_without_a_number_is_a_failed_trial(best: float | None) -> None:
    """16, hydra 2237: NaN as a point's result ended the search of Optuna's sweeper."""
    returned = _returned(Point(("lr=9",), "finished", "stem", best=best))
    assert returned.status is JobStatus.FAILED
    with pytest.raises(RuntimeError, match="no finite result"):
        returned.return_value  # noqa: B018, how a sweeper learns of it
    fine = _returned(Point(("lr=1",), "finished", "stem", best=0.5))
    assert (fine.status, fine.return_value) == (JobStatus.COMPLETED, 0.5)


def test_points_can_have_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """17, hydra 2631: peak memory of one job was counted to the next; DALI 3480: what jobs of one
    process leave grew until memory ran out. Whatever a point leaves ends with its process.
    """
    started: list[list[str]] = []

    class Process:
        returncode = 0

        def __init__(self, words: list[str], **_how: Any) -> None:
            started.append(words)
            isolated._train(Path(words[-1]))

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(isolated.subprocess, "Popen", Process)
    monkeypatch.setattr("sys.argv", ["tlcompile", "train", "d.yaml", "-m", "a=1,2"])
    assert main(["train", "d.yaml", "-m", "freeze.upto=stem,block1", "sweep.isolate=true"]) == 0
    assert [Path(words[-1]).name for words in started] == ["freeze.upto=stem", "freeze.upto=block1"]
    for words in started:
        assert words[1:4] == ["-P", "-m", "tlcompile.run.isolated"], "a plan, and nothing else"
        assert len(words) == 5
