"""Kill -9 while features are computed: what was committed stays, and no byte of it is wrong.

Also two processes that compute the same features at the same time. forked_runs.py runs them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reliability.small_runs import BLOCK_ROWS, ending, pictures, temporaries

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Runs:
    """What forked_runs.py did below a folder, with so many pictures and kills."""

    root: Path
    kills: int
    count: int
    found: dict[str, Any]

    def computed(self, name: str) -> int:
        """Return the rows that a run has computed."""
        path = self.root / f"{name}.rows"
        return path.stat().st_size if path.exists() else 0


@pytest.fixture(
    scope="module", params=[(4, 160), pytest.param((50, 1000), marks=pytest.mark.slow)], ids=str
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    kills, count = request.param
    root = tmp_path_factory.mktemp("runs")
    pictures(root / "data", count // 2)
    done = subprocess.run(
        [sys.executable, "-m", "reliability.forked_runs", str(root), str(kills)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Runs(root, kills, count, json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_killed_again_and_again(runs: Runs) -> None:
    assert runs.kills / 2 <= runs.found["kills"] <= runs.kills, "it ended too soon"
    assert runs.found["wrong"]["killed"] == 0
    assert runs.computed("whole") == runs.count
    again = runs.computed("killed") - runs.count
    assert 0 <= again <= runs.found["kills"] * BLOCK_ROWS, "at most one block for each kill"
    assert ending(runs.root / "killed") == ending(runs.root / "whole")
    assert "put aside" not in (runs.root / "killed.said").read_text()
    assert temporaries(runs.root) == []


def test_two_processes_at_the_same_time(runs: Runs) -> None:
    both = [runs.computed(name) for name in ("first", "second")]
    assert runs.count <= sum(both) <= 1.05 * runs.count
    assert runs.found["wrong"]["shared"] == 0
    for name in ("first", "second"):
        assert ending(runs.root / name) == ending(runs.root / "whole")
