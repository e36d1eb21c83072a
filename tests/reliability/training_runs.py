"""Small trainings of every shape, and all that they end with: for kills, stops and mistakes.

Imports torch and computes nothing: forked_training.py forks after it.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tiny import TinyNet, make_recipe

from reliability.small_runs import draw
from tlcompile.run import cli
from tlcompile.run.saving import Saving
from tlcompile.run.train import train_recipe

PHASES: Final = [
    {"name": "head", "freeze": "head", "epochs": 2},
    {"name": "block", "freeze": "bn1", "until": {"plateau": 1}, "epochs": 2, "restore_best": True},
    {"name": "all", "freeze": "none", "epochs": 2, "lr": 0.01, "schedule": {"name": "constant"}},
]
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "cached": {"freeze": "bn1", "fine_tune": {"epochs": 3}},
    "phases": {"fine_tune": {"phases": PHASES}},
    "ema": {
        "freeze": "none",
        "fine_tune": {"epochs": 2, "average": {"ema": 0.9}, "clip": 1.0, "accumulate": 2},
    },
    "patience": {
        "freeze": "bn1",
        "fine_tune": {"epochs": 6, "early_stop": {"patience": 2, "min_delta": 0.9}},
    },
    "outputs": {
        "freeze": "bn1",
        "remove": {"fc": "drop"},
        "add": {
            "species": {"layer": "linear", "out": 2, "inputs": "dropout"},
            "grams": {"layer": "linear", "out": 1, "inputs": "dropout"},
        },
        "outputs": ["species", "grams"],
        "task": {
            "species": {"task": "classification"},
            "grams": {"task": "regression", "weight": 0.1},
        },
        "fine_tune": {"epochs": 3},
    },
}
TIMES: Final = ("seconds", "features")  # and what a cache spared
SWEEP: Final = "sweep"
SWEPT: Final = """\
base: {model: digits_net}
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 8}
fine_tune: {epochs: 2, batch_size: 8}
run: {workers: 0}
"""


def prepare(root: Path, count: int = 7) -> None:
    """Write what is trained on: pictures of two classes, a table of them, the recipe of a sweep."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "sweep.yaml").write_text(SWEPT)
    rows = ["image,species,grams"]
    for number in range(2 * count):
        species = ("ants", "bees")[number % 2]
        path = draw(root / "pictures" / species / f"{number // 2}.png", number)
        rows.append(f"{path.relative_to(root)},{species},{number / 8}")
    (root / "table.csv").write_text("\n".join(rows) + "\n")


def save_after_each_step(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let every step be saved, and keep the last checkpoints of a finished run for comparison.

    A kill between the last save and what it clears leaves an older one; a finished run clears all.
    """
    put(Saving, "is_due", lambda _self: True)
    put(Saving, "clear", lambda self: self.checkpoints._remove_old())


def train(root: Path, shape: str, name: str, say: Callable[[str], None] = lambda _l: None) -> int:
    """Train a shape into root/name, or go on there; return the exit code."""
    if shape == SWEEP:
        return sweep(root, name)
    given = SHAPES[shape]
    tune = {"optimizer": {"name": "adamw", "lr": 0.02}, "batch_size": 4, **given["fine_tune"]}
    data = (
        {"csv": str(root / "table.csv")}
        if shape == "outputs"
        else {"folder": str(root / "pictures")}
    )
    recipe = make_recipe(
        base={"model": "digits_net", "size": 8},
        run={"workers": 0, "cache": str(root / name / "cache")},
        **{**given, "data": data, "fine_tune": tune},
    )
    torch.manual_seed(0)
    base = TinyNet()
    torch.manual_seed(int.from_bytes(os.urandom(4)))  # nothing may depend on it
    train_recipe(recipe, root / name / "run", base=base, say=say)
    return 0


def sweep(root: Path, name: str) -> int:
    """Train four points that share a cache, by the command."""
    path, out = root / "sweep.yaml", root / name
    points = ["freeze.upto=stem,block1", "fine_tune.seed=1,2", "-m"]
    where = [f"run.output_dir={out}", f"run.cache={out / 'cache'}"]
    return cli.main(["train", str(path), *points, *where])


def ending(folder: Path) -> dict[str, Any]:
    """Return all that a run ends with, but for times: by file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        name = str(place)
        if "cache" in place.parts or not path.is_file():
            continue
        if path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.name == "metrics.csv":
            found[name] = [
                without_times(row) for row in csv.DictReader(path.read_text().splitlines())
            ]
        elif path.name == "record.json":
            record = json.loads(path.read_bytes())
            kept = ("state", "best", "freeze_proof", "test", "val", "lr", "trainable")
            found[name] = {key: without_times(record.get(key)) for key in kept}
        elif path.name == "state.json":
            found[name] = without_times(json.loads(path.read_bytes()))
    return found


def without_times(value: Any) -> Any:
    """Leave out how long things took."""
    if isinstance(value, Mapping):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name the files in which two runs differ."""
    return sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))


def note(path: Path, text: str) -> None:
    """Append at once: a kill loses nothing of it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, text.encode())
    os.close(fd)


def note_places(path: Path, times: Path) -> None:
    """Note each save, before and after it: where training stands, as phase.epoch.step; and when."""
    save = Saving.save

    def noted(self: Saving) -> None:
        state = self.phases.state
        place = f"{state.phase}.{state.epoch}.{state.step}"
        note(path, f"{place} begins\n")
        save(self)
        note(path, f"{place} saved\n")
        note(times, f"{time.monotonic()}\n")

    Saving.save = noted  # type: ignore[method-assign]
