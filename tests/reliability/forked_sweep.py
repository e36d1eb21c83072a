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

from reliability.forked_training import do_not_wait, wait
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


def killed_at(child: int, root: Path, name: str, draw: random.Random) -> bool:
    """Kill a child early, or once some points have changed their state; False: it has ended."""
    early = draw.random() < 0.4
    before, more = len(log(root, name)), draw.randint(1, 3)
    until = time.monotonic() + (draw.uniform(0, 1) if early else 120)
    while time.monotonic() < until and len(log(root, name)) < before + more:
        code = wait(child, 0)
        if code is not None:
            assert code == 0, (root / f"{name}.out").read_text()
            return False
        time.sleep(0.002)
    code = wait(child, draw.uniform(0, 0.1))
    if code is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return code is None


def main(root: Path, kills: int, size: str) -> dict[str, Any]:
    """Kill sweeps again and again, and let each come to its end; return what is wrong."""
    torch.set_num_threads(1)
    do_not_wait()
    (root / "small.yaml").write_text(RECIPE)
    assert wait(start(root, "whole", size)) == 0, (root / "whole.out").read_text()
    draw, killed, sweeps = random.Random(kills), 0, 0
    wrong: list[str] = []
    while killed < kills:
        name, ends = f"killed{sweeps}", False
        while killed < kills and not ends:
            before = finished(root, name)
            ends = not killed_at(start(root, name, size), root, name, draw)
            killed += not ends
            after = finished(root, name)
            wrong += [
                f"{point} was trained again" for point, at in before.items() if after[point] != at
            ]
        assert wait(start(root, name, size)) == 0, (root / f"{name}.out").read_text()
        wrong += differences_of(root, name)
        sweeps += 1
    return {"kills": killed, "sweeps": sweeps, "points": len(table(root, "whole")), "wrong": wrong}


def differences_of(root: Path, name: str) -> list[str]:
    """Name what differs from the sweep that nobody touched."""
    ended = Counter(line["point"] for line in log(root, name) if line["state"] == "finished")
    found = [f"{point} finished twice" for point, count in ended.items() if count > 1]
    for one, other in zip(table(root, "whole"), table(root, name), strict=True):
        found += [f"row of {one['point']}"] if one != other else []
    for path, again in zip(folders(root, "whole"), folders(root, name), strict=True):
        same = without_times(ending(path)) == without_times(ending(again))
        found += [] if same else [f"files of {path.name}"]
    return found


def folders(root: Path, name: str) -> list[Path]:
    """Return the points' folders, in order."""
    return sorted(path for path in (root / name).glob("*/*") if (path / "record.json").exists())


if __name__ == "__main__":
    done = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.stdout.write(f"{json.dumps(done)}\n")
