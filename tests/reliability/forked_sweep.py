"""Kill a sweep in children of a process that has only imported things; see test_killed_sweep.py.

A script: a process that has computed must not be forked.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torchmetrics.classification  # noqa: F401

from reliability.forked_training import do_not_wait
from reliability.training_runs import ending, without_times
from tlcompile.run import cli, fit  # noqa: F401, Hydra

RECIPE = """\
base: {model: digits_net}
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 6}
fine_tune: {epochs: 2, batch_size: 8}
run: {workers: 0}
"""
SWEEPS = {  # sweep: overrides
    "small": ["freeze.upto=block2,head", "fine_tune.optimizer.lr=1e-3,1e-2"],
    "large": [
        *("freeze.upto=stem,block1,block2,head", "fine_tune.optimizer.lr=1e-3,3e-3,1e-2"),
        "fine_tune.seed=1,2",
    ],
}


def start(root: Path, name: str, size: str) -> int:
    """Fork a child that runs the sweep; one that comes to its end exits with the command's code."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        sys.stdout = sys.stderr = (root / f"{name}.out").open("a", buffering=1)
        where = [f"run.output_dir={root / name}", f"run.cache={root / name / 'cache'}"]
        words = ["train", str(root / "small.yaml"), "-m", *SWEEPS[size], *where]
        code = cli.main(words)
    finally:
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """Return how a child ended; None: it has not, in so many seconds."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def table(root: Path, name: str) -> list[dict[str, str]]:
    """Return manifest.csv, but for seconds and folders."""
    (path,) = (root / name).glob("*/manifest.csv")
    with path.open(newline="") as file:
        return [{**row, "seconds": "", "folder": ""} for row in csv.DictReader(file)]


def log(root: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of the log, as far as there are any; a torn one is left out."""
    lines: list[dict[str, Any]] = []
    for path in (root / name).glob("*/points.jsonl"):
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    return lines


def finished(root: Path, name: str) -> dict[str, int]:
    """Return when each finished point's record was written."""
    found = {}
    for path in (root / name).glob("*/*/record.json"):
        if json.loads(path.read_bytes()).get("state") == "finished":
            found[path.parent.name] = path.stat().st_mtime_ns
    return found


def main(root: Path, kills: int, size: str) -> dict[str, Any]:
    """Kill the sweep again and again; return what is wrong."""
    torch.set_num_threads(1)
    do_not_wait()
    (root / "small.yaml").write_text(RECIPE)
    began = time.monotonic()
    assert wait(start(root, "whole", size), 600) == 0, (root / "whole.out").read_text()
    seconds = time.monotonic() - began
    draw, killed, rewritten = random.Random(kills), 0, 0
    while killed < kills:
        before = finished(root, "killed")
        child = start(root, "killed", size)
        code = wait(child, draw.uniform(0, seconds * 0.7))
        if code is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
        else:
            assert code == 0, (root / "killed.out").read_text()
            break
        after = finished(root, "killed")
        rewritten += sum(after.get(point) != stamp for point, stamp in before.items())
    assert wait(start(root, "killed", size), 600) == 0, (root / "killed.out").read_text()
    whole, again = table(root, "whole"), table(root, "killed")
    runs = [without_times(ending(path)) for path in folders(root, "whole")]
    others = [without_times(ending(path)) for path in folders(root, "killed")]
    ended = Counter(line["point"] for line in log(root, "killed") if line["state"] == "finished")
    return {
        "kills": killed,
        "points": len(whole),
        "rewritten": rewritten,
        "twice": sorted(point for point, count in ended.items() if count > 1),
        "tables": [one["point"] for one, other in zip(whole, again, strict=True) if one != other],
        "folders": sum(one != other for one, other in zip(runs, others, strict=True)),
    }


def folders(root: Path, name: str) -> list[Path]:
    """Return the points' folders, in order."""
    return sorted(path for path in (root / name).glob("*/*") if (path / "record.json").exists())


if __name__ == "__main__":
    done = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.write(f"{json.dumps(done)}\n")
