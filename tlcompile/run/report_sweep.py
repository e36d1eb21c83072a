"""Read a sweep's folder for its page: the manifest, and what its points' folders say."""

from __future__ import annotations

import csv
import io
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlcompile.errors.base import TLCompileError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.overrides import is_sweep, split_arguments
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.tasks import TASKS, metrics_of
from tlcompile.report.pages import Epoch, SweepData, SweepPoint
from tlcompile.run.folder import read_record
from tlcompile.run.prove import compile_phases
from tlcompile.run.report_run import frozen_words, origin, read_epochs, reproduce
from tlcompile.run.report_samples import headline
from tlcompile.sweep.manifest import read_command

MANIFEST = "manifest.csv"
Prove = Callable[[Recipe], CompiledModel]
_OVERRIDE = re.compile(r"(?:^| )(?=[~+]*[A-Za-z_][\w.\-/]*=|~[\w.]+(?: |$))")


@dataclass(frozen=True)
class _Depth:
    """How deep a freeze point lies: FLOPs of what is frozen, then how many vertices."""

    flops: int
    vertices: int


def prove(recipe: Recipe) -> CompiledModel:
    """Compile a point's first phase on meta."""
    return compile_phases(recipe, None).model


def sweep_data(folder: Path, proved: Prove = prove) -> SweepData:
    """Return what the page of a sweep shows; points that are missing or failed are rows, too.

    Args:
        folder: The sweep's.
        proved: Gives the model of a point's recipe on meta.
    """
    rows = _rows(folder)
    recipes = [_recipe(_folder(folder, row)) for row in rows]
    freezes = [_freeze(row, recipe) for row, recipe in zip(rows, recipes, strict=True)]
    depths, why = _depths(freezes, recipes, proved)
    metric = next((row["metric"] for row in rows if row.get("metric")), "")
    command = read_command(folder)
    points = tuple(
        _point(folder, row, freeze, depths.get(freeze), recipe, metric, command)
        for row, freeze, recipe in zip(rows, freezes, recipes, strict=True)
    )
    others = sum(row.get("metric") not in ("", None, metric) for row in rows)
    if others:
        why.append(f"{others} of {len(rows)} points have no value here: theirs is not {metric}.")
    records = [record for p in points if (record := read_record(Path(p.folder))) is not None]
    name = next((recipe.name for recipe in recipes if recipe), folder.name)
    return SweepData(
        name=name,
        folder=str(folder),
        metric=metric,
        rising=_rises(metric),
        points=points,
        freeze_points=_in_order(points, depths),
        notes=tuple(why),
        origin=_origin(records),
        command=command,
    )


def _rows(folder: Path) -> list[dict[str, str]]:
    text = (folder / MANIFEST).read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _folder(sweep: Path, row: Mapping[str, str]) -> Path:
    """Return a point's folder: in the sweep's own, wherever that was moved to."""
    there = sweep / Path(row["folder"]).name
    return there if row["folder"] and there.is_dir() else Path(row["folder"])


def _recipe(folder: Path) -> Recipe | None:
    """Return a point's recipe; None where it failed before it wrote one."""
    path = folder / "recipe.yaml"
    try:
        return load_recipe(path) if path.is_file() else None
    except TLCompileError:
        return None


def _freeze(row: Mapping[str, str], recipe: Recipe | None) -> str:
    return frozen_words(recipe) if recipe else row.get("freeze") or "none"


def _depths(
    freezes: Sequence[str], recipes: Sequence[Recipe | None], proved: Prove
) -> tuple[dict[str, _Depth], list[str]]:
    """Return how deep each freeze point lies, and why that of some is not known."""
    found: dict[str, _Depth] = {}
    failed: dict[str, str] = {}
    for freeze, recipe in zip(freezes, recipes, strict=True):
        if recipe is None or freeze in found or freeze in failed:
            continue
        try:
            rows = proved(recipe).summary.vertices
        except TLCompileError as error:
            failed[freeze] = headline(error)
            continue
        frozen = [row for row in rows if row.frozen]
        found[freeze] = _Depth(sum(row.flops for row in frozen), len(frozen))
    lines = [f"Where {name} lies in the graph is not known: {why}." for name, why in failed.items()]
    return found, lines


def _in_order(points: Sequence[SweepPoint], depths: Mapping[str, _Depth]) -> tuple[str, ...]:
    """Return the freeze points from the input on; those not compiled by what they leave to train."""
    names = list(dict.fromkeys(point.freeze for point in points))
    left = {point.freeze: point.trainable for point in points if point.trainable is not None}
    if all(name in depths for name in names):
        return tuple(sorted(names, key=lambda name: (depths[name].flops, depths[name].vertices)))
    return tuple(sorted(names, key=lambda name: -left.get(name, -1)))


def _point(
    sweep: Path,
    row: Mapping[str, str],
    freeze: str,
    depth: _Depth | None,
    recipe: Recipe | None,
    metric: str,
    command: str,
) -> SweepPoint:
    folder = _folder(sweep, row)
    low, high = _float(row.get("low95")), _float(row.get("high95"))
    epochs, trained = read_epochs(folder), metric.replace("val/", "train/", 1)
    is_alike = row.get("metric") == metric  # each point has its own fine_tune.monitor
    return SweepPoint(
        overrides=overrides_of(row["point"]),
        state=row["state"],
        freeze=freeze,
        value=_float(row.get("best")) if is_alike else None,
        interval=(low, high) if low is not None and high is not None else None,
        count=_int(row.get("n")),
        best_epoch=_int(row.get("best_epoch")),
        lr=_float(row.get("lr")),
        trainable=_int(row.get("trainable")),
        frozen_flops=depth.flops if depth else None,
        seconds=_float(row.get("seconds")),
        folder=str(folder),
        error=row.get("error") or "",
        command=reproduce(folder, recipe) if recipe else _alone(command, row["point"]),
        curve=_curve(epochs, metric),
        train_curve=_curve(epochs, trained) if trained != metric else (),
    )


def _curve(epochs: Sequence[Epoch], column: str) -> tuple[float, ...]:
    """Return a value of each epoch, nan where it was not measured; nothing where it never was."""
    values = tuple(epoch.values.get(column, math.nan) for epoch in epochs)
    return values if any(map(math.isfinite, values)) else ()


def overrides_of(text: str) -> dict[str, str]:
    """Return the overrides of a manifest's cell, by key; a value may have spaces in it."""
    text = text[1:] if text[:2] in ("'=", "'+", "'-", "'@") else text  # as a spreadsheet needs it
    pairs = (part.strip().partition("=") for part in _OVERRIDE.split(text) if part.strip())
    return {key: value for key, _, value in pairs}


def _alone(command: str, point: str) -> str:
    """Return the command of one point, from that of its sweep: its own values for the swept ones."""
    words = shlex.split(command)
    if "-m" not in words:
        return ""
    place = words.index("-m")
    overrides, _, _ = split_arguments(words[place + 1 :])
    values = overrides_of(point)
    fixed = [one.text for one in overrides if not is_sweep(one)]
    return shlex.join(
        [*words[:place], *fixed, *(f"{key}={value}" for key, value in values.items())]
    )


def _float(cell: str | None) -> float | None:
    value = float(cell) if cell else None
    return value if value is not None and math.isfinite(value) else None


def _int(cell: str | None) -> int | None:
    return int(cell) if cell else None


def _rises(metric: str) -> bool:
    known = {name: rises for task in TASKS for name, rises in metrics_of(task).items()}
    return known.get(metric.rpartition("/")[2], True)


def _origin(records: Sequence[Mapping[str, object]]) -> tuple[tuple[str, str], ...]:
    """Return what all points have in common, and how often they differ in the rest."""
    each = [dict(origin(record)) for record in records]
    if not each:
        return ()
    found = []
    for word in each[0]:
        values = list(dict.fromkeys(one.get(word, "") for one in each))
        known = (
            values[0]
            if len(values) == 1
            else f"{len(values)} different ones"
            if word.endswith("sha256")
            else ", ".join(values)
        )
        found.append((word, known))
    return tuple(found)
