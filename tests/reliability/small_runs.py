"""Small runs with many blocks, what they end with, and what they had to compute."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyNet, make_recipe

from tlcompile.data import folder as data_folder
from tlcompile.durable.leftovers import leftovers
from tlcompile.features import extract
from tlcompile.features.prefix import Prefix, Rows
from tlcompile.recipe.schema import Recipe
from tlcompile.run.train import RunResult, train_recipe

SIDE = 12  # pixels
CHUNK = 4  # images a pass
ROW_BYTES = 8 * SIDE * SIDE * 4  # of TinyNet's bn1
BLOCK_ROWS = 8


def draw(path: Path, number: int) -> Path:
    """Write picture number so and so; another number, other bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(root: Path, count: int) -> Path:
    """Write `count` pictures of each of two classes, all different."""
    for number in range(count):
        draw(root / "ants" / f"{number:03}.png", 2 * number)
        draw(root / "bees" / f"{number:03}.png", 2 * number + 1)
    return root


def split(root: Path) -> Path:
    """Write train/, val/ and test/; a picture of each class of train is in test, too."""
    for number, (name, count) in enumerate((("train", 6), ("val", 2), ("test", 2))):
        for label in ("ants", "bees"):
            for n in range(count):
                draw(root / name / label / f"{n}.png", 1000 * number + 10 * n + (label == "bees"))
    for label in ("ants", "bees"):
        shutil.copy(root / "train" / label / "0.png", root / "test" / label / "same.png")
    return root


def many_blocks() -> None:
    """Make blocks small; an argument for monkeypatch would not reach a forked child."""
    extract.BLOCK_BYTES, extract.BLOCK_ROWS = BLOCK_ROWS * ROW_BYTES, 1


def net() -> TinyNet:
    """Return the same network each time."""
    torch.manual_seed(0)
    return TinyNet()


def recipe_of(images: Path, cache: Path, **sections: Any) -> Recipe:
    """Return a recipe that freezes up to bn1 and trains for 2 short epochs."""
    sections.setdefault("freeze", "bn1")
    given = {
        "base": {"model": "digits_net", "size": SIDE},
        "data": {"folder": str(images), **sections.pop("data", {})},
        "features": {"batch_size": CHUNK, **sections.pop("features", {})},
        "fine_tune": {"epochs": 2, "batch_size": 16, **sections.pop("fine_tune", {})},
        "run": {"cache": str(cache), "workers": 0, **sections.pop("run", {})},
    }
    return make_recipe(**given, **sections)


def train(images: Path, folder: Path, cache: Path, **sections: Any) -> tuple[RunResult, list[str]]:
    """Train; return the result and what was said of features."""
    lines: list[str] = []
    recipe = recipe_of(images, cache, **sections)
    result = train_recipe(recipe, folder, base=net(), say=lines.append)
    return result, [line for line in lines if line.startswith("features") or " rows: " in line]


def ending(folder: Path) -> dict[str, Any]:
    """Return what a run ended with, but for seconds: weights and metrics."""
    with (folder / "metrics.csv").open() as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    weights = {n: (folder / n / "model.safetensors").read_bytes() for n in ("bundle", "last")}
    return {"metrics": rows, **weights}


def temporaries(root: Path) -> list[Path]:
    """List what writing has left anywhere below a folder."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    return [found for folder in folders for found, _ in leftovers(folder, "tmp")]


class Work:
    """What was computed: images decoded, rows that went through the frozen part."""

    def __init__(self) -> None:
        self.decoded: list[str] = []
        self.rows = 0

    def since(self) -> tuple[int, int]:
        """Return (images decoded, rows computed) since the last call."""
        found = len(self.decoded), self.rows
        self.decoded, self.rows = [], 0
        return found


def counted(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Count the work of all runs from here on."""
    work = Work()
    decode, prefix = data_folder.decode_image, Prefix.__call__

    def decode_image(data: bytes, path: str, channels: int) -> torch.Tensor:
        work.decoded.append(path)
        return decode(data, path, channels)

    def call(self: Prefix, *inputs: torch.Tensor) -> Rows:
        work.rows += len(inputs[0])
        return prefix(self, *inputs)

    monkeypatch.setattr(data_folder, "decode_image", decode_image)
    monkeypatch.setattr(Prefix, "__call__", call)
    return work
