"""Kill -9 while features are computed: what was committed stays, and no byte of it is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reliability.small_runs import BLOCK_ROWS, ending, pictures, temporaries

TESTS = Path(__file__).parents[1]


def forked(root: Path, what: str, kills: int = 0) -> dict[str, Any]:
    """Run forked_runs.py; return what it found."""
    command = [sys.executable, "-m", "reliability.forked_runs", str(root), what, str(kills)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def computed(root: Path, name: str) -> int:
    return (root / f"{name}.rows").stat().st_size


def said(root: Path, name: str) -> str:
    return (root / f"{name}.said").read_text()


@pytest.mark.parametrize(
    ("kills", "count"), [(4, 64), pytest.param(50, 1000, marks=pytest.mark.slow)]
)
def test_killed_again_and_again(tmp_path: Path, kills: int, count: int) -> None:
    pictures(tmp_path / "data", count // 2)
    found = forked(tmp_path, "kill", kills)
    assert found == {"kills": kills, "wrong": 0}, "it ended too soon, or a row is wrong"
    assert computed(tmp_path, "whole") == count
    again = computed(tmp_path, "killed") - count
    print(f"{kills} kills, {count} rows, {again} computed again")
    assert 0 <= again <= kills * BLOCK_ROWS, "at most one block for each kill"
    assert ending(tmp_path / "killed") == ending(tmp_path / "whole")
    assert "put aside" not in said(tmp_path, "killed")
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize("count", [48, pytest.param(600, marks=pytest.mark.slow)])
def test_two_processes_at_the_same_time(tmp_path: Path, count: int) -> None:
    pictures(tmp_path / "data", count // 2)
    assert forked(tmp_path, "two") == {"wrong": 0}
    both = [computed(tmp_path, n) for n in ("first", "second") if (tmp_path / f"{n}.rows").exists()]
    print(f"{count} rows, computed {both}")
    assert count <= sum(both) <= 1.05 * count
    for name in ("first", "second"):
        assert ending(tmp_path / name) == ending(tmp_path / "whole")
    assert temporaries(tmp_path) == []
