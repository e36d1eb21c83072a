"""B5: cold starters, mixed readers and writers, and kills, on one set: no wrong byte, no error.

With locks the work is done once; without them twice or more, and nothing else changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
FULL = {"starters": 64, "blocks": 100, "mixed": 16, "operations": 400, "kills": 50}
WAYS = ("locks", "always", "readonly", "evicted")
PATIENCE = 20.0  # seconds


def fire(folder: Path, *ways: str, **settings: float) -> dict[str, dict[str, Any]]:
    """Set it, in a process of its own: this one has threads, which a fork would lose."""
    script = TESTS / "reliability" / "store_fire.py"
    chosen = json.dumps({"patience": PATIENCE, **settings})
    done = subprocess.run(
        [sys.executable, str(script), str(folder), chosen, *ways],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def check(way: str, found: dict[str, Any], kills: int) -> None:
    assert found["errors"] == []
    assert found["kills"] >= kills, "it was over before enough were killed"
    assert found["longest_stall"] <= PATIENCE
    for_nothing = found["computed"] - found["wanted"]
    match way:
        case "locks":
            assert 0 <= for_nothing <= found["kills"], "a block a kill at most"
        case "evicted":
            assert found["evictions"], "nothing was evicted"
        case _:
            assert for_nothing > found["wanted"], "nobody computed twice: were there locks?"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return fire(tmp_path_factory.mktemp("fire"), *WAYS)


@pytest.mark.parametrize("way", WAYS)
def test_a_small_fire_harms_nothing(small: dict[str, dict[str, Any]], way: str) -> None:
    check(way, small[way], kills=5)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_whole_fire_harms_nothing(tmp_path: Path, way: str) -> None:
    """The bar's figures: 64 cold starters, 16 x 400 reads and writes, 50 kills."""
    few = {} if way == "locks" else {"blocks": 10}  # every starter computes them
    found = fire(tmp_path, way, **(FULL | few))[way]
    print(way, found)  # noqa: T201, the figures are the result
    check(way, found, kills=50)
