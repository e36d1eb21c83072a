"""A sweep of three points over the bundled digits, as the command line starts it, and what it leaves."""

from __future__ import annotations

import csv
from pathlib import Path

from tlcompile.run.cli import main

DIGITS = """\
base: {model: digits_net}
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 8}
fine_tune: {epochs: 1, batch_size: 8}
"""
NAMES = ("stem", "block1", "block2")
POINTS = f"freeze.upto={','.join(NAMES)}"


def train(*words: str, code: int = 0) -> None:
    """Sweep over the recipe d.yaml of this folder."""
    assert main(["train", "d.yaml", "-m", *words]) == code


def rows(above: str = "sweeps") -> list[dict[str, str]]:
    """Return manifest.csv of the one sweep in a folder."""
    (path,) = Path(above).glob("*/manifest.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights(above: str, name: str) -> bytes:
    (path,) = Path(above).glob(f"*/freeze.upto={name}/bundle/model.safetensors")
    return path.read_bytes()
