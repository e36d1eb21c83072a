"""The outcome of a sweep, point by point: a failed point is a row, not the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlcompile.durable.files import make_folder, write_file

COLUMNS = (
    "point", "state", "freeze", "trainable", "lr", "best_epoch", "metric", "best", "n",
    "low95", "high95", "seconds", "folder", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One row of manifest.csv.

    Attributes:
        overrides: What the sweep chose, `key=value`.
        state: finished or failed.
        freeze: The freeze point, as in the recipe.
        trainable: Parameters that learn.
        lr: Learning rate at the start.
        best_epoch: Counts from 1.
        metric: Name of the value in `best`.
        best: The monitored value at its best epoch; accuracies from 0 to 1.
        count: Samples that it was measured on.
        interval: 95 % interval of an accuracy.
        seconds: Wall time of the point.
        folder: The run's folder.
        error: First line of what went wrong.
    """

    overrides: tuple[str, ...]
    state: str
    freeze: str
    trainable: int | None = None
    lr: float | None = None
    best_epoch: int | None = None
    metric: str = ""
    best: float | None = None
    count: int | None = None
    interval: tuple[float, float] | None = None
    seconds: float = 0.0
    folder: str = ""
    error: str = ""

    def cells(self) -> tuple[object, ...]:
        """Return the row's cells, in the order of `COLUMNS`; empty where unknown."""
        low, high = self.interval or (None, None)
        row = (
            " ".join(self.overrides), self.state, self.freeze, self.trainable, self.lr,
            self.best_epoch, self.metric, _rounded(self.best), self.count, _rounded(low),
            _rounded(high), round(self.seconds, 3), self.folder, self.error,
        )  # fmt: skip
        return tuple("" if cell is None else _safe(cell) for cell in row)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _safe(cell: object) -> object:
    """Keep a spreadsheet from reading text as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def write_manifest(folder: Path, points: Sequence[Point]) -> Path:
    """Write manifest.csv, whole; called after each point."""
    make_folder(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(point.cells() for point in points)
    path = folder / "manifest.csv"
    write_file(path, text.getvalue().encode())
    return path
