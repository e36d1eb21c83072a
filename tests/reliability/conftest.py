"""One process that forks trainings for two test modules: its imports take longer than its runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
KILLED = ("cached:3:9", "phases:4:9", "ema:2:9")
STOPPED = ("phases:4:15,10,2",)
UNDER_FIRE = ("cached:live1:9",)
QUICK = (*KILLED, *STOPPED, *UNDER_FIRE)

Reports = dict[str, dict[str, Any]]


def fork_trainings(jobs: tuple[str, ...]) -> Reports:
    """Run forked_training.py; its files are in memory where that can be."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tlcompile-", dir=memory) as place:
        done = subprocess.run(
            [sys.executable, "-m", "reliability.forked_training", place, *jobs],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-4000:]
    found: Reports = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="session")
def forked() -> Callable[[tuple[str, ...]], Reports]:
    """Return what jobs have done; the quick ones are done together, once."""
    kept: Reports = {}

    def reports(jobs: tuple[str, ...]) -> Reports:
        missing = tuple(job for job in jobs if job not in kept)
        if missing:
            kept.update(fork_trainings(QUICK if {*QUICK} & {*missing} else missing))
        return {job: kept[job] for job in jobs}

    return reports
