"""The table of a sweep: a row from a point's record, and the rows on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tlcompile.errors.base import listed
from tlcompile.passes.lookup import shown_point
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import read_record
from tlcompile.run.say import table
from tlcompile.run.shared import images_key
from tlcompile.sweep.manifest import FINISHED, PLANNED
from tlcompile.sweep.points import Point
from tlcompile.training.metrics import Score


def row_of(
    overrides: tuple[str, ...], recipe: Recipe, folder: Path, record: dict[str, Any] | None
) -> Point:
    """Return the row of a point; without a record it is still to run."""
    freeze = " + ".join(map(shown_point, recipe.freeze.upto))
    if record is None:
        return Point(overrides, PLANNED, freeze, folder=str(folder))
    best = record["best"]
    split, _, metric = record["monitor"].partition("/")
    score = Score.from_data(best[split] or best["train"])
    return Point(
        overrides=overrides,
        state=FINISHED,
        freeze=freeze,
        trainable=record["trainable"],
        lr=record["lr"],
        best_epoch=best["epoch"],
        metric=record["monitor"],
        best=score.value(metric),
        count=score.count,
        interval=score.interval() if metric == "accuracy" and score.correct is not None else None,
        seconds=record["seconds"],
        folder=str(folder),
    )


def mixed_lines(recipes: Sequence[Recipe], rows: Sequence[Point]) -> Iterator[str]:
    """Yield a warning where points of one recipe for the images were trained on different ones.

    A point that is finished stays, whatever has become of the images since: then the others differ.
    """
    found: dict[str, dict[str, str]] = {}  # images as written -> digest -> the first point
    for recipe, row in zip(recipes, rows, strict=True):
        record = read_record(Path(row.folder))
        if record is not None:
            digests = found.setdefault(str(images_key(recipe)), {})
            digests.setdefault(str(record["images_sha256"]), " ".join(row.overrides))
    for digests in found.values():
        if len(digests) > 1:
            yield f"warning     trained on different images: {listed(list(digests.values()), 4)}"
            yield "            (--again trains finished points anew)"


def show_points(rows: Sequence[Point]) -> None:
    """Print the table of a sweep."""
    columns = ("point", "freeze", "trains", "lr", "seconds", "best", "n", "95 % interval", "state")
    table("sweep", columns, [_shown(row) for row in rows])


def _shown(row: Point) -> tuple[str, ...]:
    percent = row.metric.endswith("accuracy")
    best = "" if row.best is None else f"{100 * row.best:.1f} %" if percent else f"{row.best:.4f}"
    interval = f"{100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f}" if row.interval else ""
    state = row.state if not row.error else f"{row.state}: {row.error}"
    return (
        " ".join(row.overrides),
        row.freeze,
        f"{row.trainable:,}" if row.trainable is not None else "",
        f"{row.lr:g}" if row.lr is not None else "",
        f"{row.seconds:.1f}",
        best,
        str(row.count or ""),
        interval,
        state,
    )
