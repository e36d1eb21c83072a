"""Run the points of a sweep in this process; every point is proved before the first starts."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlcompile.compiler import PLACEHOLDER_CLASSES, prove_recipe
from tlcompile.durable.generations import sweep_temporaries
from tlcompile.errors.base import Problems, TLCompileError, raise_problems
from tlcompile.errors.run import SweepFailedError
from tlcompile.passes.lookup import shown_point
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import find_generation, recipe_digest
from tlcompile.run.launch import Job
from tlcompile.run.refuse import refuse_other_classes, refuse_untrainable
from tlcompile.run.say import say, table
from tlcompile.run.single import train_on
from tlcompile.run.splits import known_classes
from tlcompile.sweep.points import Point, write_manifest
from tlcompile.training.metrics import Score
from tlcompile.training.ranks import ALONE


def run_points(
    points: Sequence[tuple[str, ...]],
    recipes: Sequence[Recipe],
    *,
    again: bool = False,
    **how: bool,
) -> list[Point]:
    """Train every point; end with one table, also as manifest.csv.

    Points that are finished already are taken from their folders.

    Raises:
        Problems: Points that cannot be compiled; none was started.
        SweepFailedError: Some points failed; the others are done.
    """
    _prove_all(recipes)
    folder = sweep_folder(recipes)
    sweep_temporaries(folder)
    rows: list[Point] = []
    for number, (overrides, recipe) in enumerate(zip(points, recipes, strict=True), 1):
        say(f"point {number} of {len(points)}: {' '.join(overrides)}")
        rows.append(_run_point(overrides, recipe, folder / _folder_name(overrides), again, how))
        manifest = write_manifest(folder, rows)
    say("")
    show_points(rows)
    say("")
    say(f"results     {manifest}")
    failed = sum(row.state == "failed" for row in rows)
    if failed:
        raise SweepFailedError(failed=failed, total=len(rows))
    return rows


def _prove_all(recipes: Sequence[Recipe]) -> None:
    errors: dict[str, TLCompileError] = {}
    for recipe in recipes:
        try:
            classes = known_classes(recipe)
            model = prove_recipe(recipe, num_classes=classes or PLACEHOLDER_CLASSES)
            refuse_other_classes(recipe, model)
            refuse_untrainable(recipe, model, classes, swept=True)
        except TLCompileError as error:
            members = error.errors if isinstance(error, Problems) else (error,)
            errors.update({str(member): member for member in members})
    raise_problems(errors.values())


def sweep_folder(recipes: Sequence[Recipe]) -> Path:
    """Return the sweep's folder: the same points, the same folder."""
    first = recipes[0]
    above = "sweeps" if first.run.output_dir == "runs" else first.run.output_dir
    digest = hashlib.sha256(" ".join(map(recipe_digest, recipes)).encode()).hexdigest()[:8]
    return Path(above) / f"{first.name}-{digest}"


def _folder_name(overrides: tuple[str, ...]) -> str:
    text = ",".join(overrides)
    name = re.sub(r"[^A-Za-z0-9_.=,-]", "_", text)
    # Two points whose names differ in other characters alone keep two folders.
    suffix = (
        "" if name == text and len(name) < 100 else hashlib.sha256(text.encode()).hexdigest()[:8]
    )
    return f"{name[:90]}-{suffix}" if suffix else name


def _run_point(
    overrides: tuple[str, ...], recipe: Recipe, folder: Path, again: bool, how: Mapping[str, bool]
) -> Point:
    freeze = " + ".join(map(shown_point, recipe.freeze.upto))
    folder, record = find_generation(folder, again=again)
    if record is not None:
        say(f"finished before: {folder}")
    start = time.perf_counter()
    try:
        record = record or train_on(Job(recipe, folder, {"swept": True, **how}), ALONE)
    except Exception as error:  # one bad point is a row: the others must go on
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        seconds, text = time.perf_counter() - start, str(error).splitlines()
        say(f"failed: {error}")
        first = text[0] if text else type(error).__name__
        return Point(overrides, "failed", freeze, seconds=seconds, folder=str(folder), error=first)
    return _row(overrides, freeze, record, folder)


def _row(overrides: tuple[str, ...], freeze: str, record: dict[str, Any], folder: Path) -> Point:
    best = record["best"]
    split, _, metric = record["monitor"].partition("/")
    score = Score.from_data(best[split] or best["train"])
    return Point(
        overrides=overrides,
        state="finished",
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
