"""B1 for a sweep: kill -9 at any instant; every finished point is kept, and none runs twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("kills", "size", "points"),
    [
        (2, "small", 4),
        pytest.param(50, "large", 24, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_instants(tmp_path: Path, kills: int, size: str, points: int) -> None:
    """The final table and every file are those of the sweep that nobody touched."""
    done = subprocess.run(
        [sys.executable, "-m", "reliability.forked_sweep", str(tmp_path), str(kills), size],
        capture_output=True, text=True, timeout=1800, check=False, cwd=TESTS,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["points"] == points
    assert report["kills"] == kills
    assert report["wrong"] == []
