"""Run the points of a sweep; every point is proved before the first starts, and all share what is equal."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tlcompile.compiler import PLACEHOLDER_CLASSES
from tlcompile.durable.generations import sweep_temporaries
from tlcompile.errors.base import Problems, TLCompileError, raise_problems
from tlcompile.errors.engines import PointLostError
from tlcompile.errors.run import SweepFailedError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.engines import Engine
from tlcompile.run.folder import find_generation, only_here, read_record, recipe_digest
from tlcompile.run.freed_memory import only_new_garbage
from tlcompile.run.isolated import PointFailedError, is_over, plan_point, result_of, run_apart
from tlcompile.run.launch import Job, num_devices
from tlcompile.run.refuse import refuse_other_classes, refuse_untrainable
from tlcompile.run.report import write_sweep_report
from tlcompile.run.say import say
from tlcompile.run.shared import Shared
from tlcompile.run.single import train_on
from tlcompile.run.sweep_fused import Ended, train_fused
from tlcompile.run.sweep_pass import share_rows
from tlcompile.run.sweep_table import mixed_lines, row_of, show_points
from tlcompile.run.train import train_recipe
from tlcompile.sweep.fuse import plan_fusion
from tlcompile.sweep.manifest import FAILED, Manifest, write_command
from tlcompile.sweep.points import Point
from tlcompile.sweep.same import same_points
from tlcompile.training.ranks import ALONE

AT_ONCE = 64  # points that train as one: each has its folder locked, its tables open


def run_points(
    points: Sequence[tuple[str, ...]],
    recipes: Sequence[Recipe],
    *,
    again: bool = False,
    engine: Engine | None = None,
    folder: Path | None = None,
    earlier: Sequence[Point] = (),
    shared: Shared | None = None,
    command: str = "",
    **how: bool,
) -> list[Point]:
    """Train every point; end with one table, also as manifest.csv. A failed point is a row.

    Points that are finished already are taken from their folders, an unfinished one goes on.

    Args:
        points: What the sweep chose, `key=value`.
        recipes: Of the points.
        again: Train finished ones anew.
        engine: Runs the points; None: this process.
        folder: Of the sweep; default: named by the recipes.
        earlier: Rows of the same sweep, which a sweeper may extend.
        shared: What earlier points of it have made.
        command: What was typed, for the sweep's folder; empty: nothing was.
        how: Options of a run.

    Raises:
        Problems: Points that cannot be compiled; none was started.
        RunBusyError: Another process runs this sweep.
        StoppedError: A signal asked for it; the running point has saved what it did.
    """
    shared = shared or Shared()
    prove_all(recipes, shared)
    for line in same_points(points, recipes, [_proved(recipe, shared) for recipe in recipes]):
        say(f"same        {line}")
    folder = folder or sweep_folder(recipes)
    if engine is not None:
        engine.check()
    with only_here(folder):
        sweep_temporaries(folder)
        rows, jobs, missing = _found(points, recipes, folder, again=again, how=how)
        manifest = Manifest(folder, [*earlier, *rows])
        noted = _Noted(manifest, len(earlier))
        if command:
            write_command(folder, command)
        try:
            if engine is None:
                with only_new_garbage():
                    _run(rows, jobs, missing, noted, shared)
            else:
                _run_elsewhere(rows, jobs, missing, noted, engine)
        finally:
            path = manifest.write()
    mixed = mixed_lines(recipes, manifest.rows[len(earlier) :])
    _show(manifest.rows, path, shared, mixed)
    return manifest.rows


def _show(rows: Sequence[Point], path: Path, shared: Shared, mixed: Iterable[str]) -> None:
    """Print the table, where it is, and where its page is."""
    say("")
    show_points(rows)
    for line in mixed:
        say(line)
    say("")
    say(f"results     {path}")
    try:
        page = write_sweep_report(path.parent, proved=partial(_proved, shared=shared))
        say(f"page        {page}")
    except TLCompileError as error:  # the table is whole without it
        say(f"page        not written: {error.headline()}")


def _found(
    points: Sequence[tuple[str, ...]],
    recipes: Sequence[Recipe],
    folder: Path,
    *,
    again: bool,
    how: Mapping[str, bool],
) -> tuple[list[Point], list[Job], dict[int, Job]]:
    """Return the rows of the points as they are, their jobs, and the jobs that are to be run."""
    places = [find_generation(folder / folder_name(texts), again=again) for texts in points]
    rows = [
        row_of(texts, recipe, *place)
        for texts, recipe, place in zip(points, recipes, places, strict=True)
    ]
    jobs = [
        Job(recipe, place, {"swept": True, **how})
        for recipe, (place, _) in zip(recipes, places, strict=True)
    ]
    return rows, jobs, {n: jobs[n] for n, (_, record) in enumerate(places) if record is None}


def _run(
    rows: Sequence[Point],
    jobs: Sequence[Job],
    missing: Mapping[int, Job],
    noted: _Noted,
    shared: Shared,
) -> None:
    """Run what is missing, in order."""
    here = {n: job.recipe for n, job in missing.items() if _is_here(job)}
    if len(here) > 1:
        share_rows(here, shared, say)
    groups = {group[0]: group for group in _groups(here, shared)}
    waiting = dict(missing)
    for number, job in enumerate(jobs):
        if number not in missing:
            _say_finished(number, rows, job)
            continue
        unit = {n: waiting.pop(n) for n in groups.get(number, (number,)) if n in waiting}
        if not unit:
            continue  # it has trained with an earlier one
        for n in unit:
            say(f"point {n + 1} of {len(rows)}: {' '.join(rows[n].overrides)}")
        _run_unit(unit, rows, noted, shared)


def _run_elsewhere(
    rows: Sequence[Point],
    jobs: Sequence[Job],
    missing: Mapping[int, Job],
    noted: _Noted,
    engine: Engine,
) -> None:
    """Let an engine run what is missing; the manifest has each point as soon as it ends."""
    left = {job.folder: number for number, job in missing.items()}

    def ended(job: Job) -> None:
        record = read_record(job.folder)
        if record is not None:  # one that failed may be queued again: its row waits
            number = left[job.folder]
            noted.end(number, row_of(rows[number].overrides, job.recipe, job.folder, record))
            del left[job.folder]

    for number in range(len(jobs)):
        if number not in missing:
            _say_finished(number, rows, jobs[number])
    try:
        if missing:
            engine.run(list(missing.values()), ended)
    except KeyboardInterrupt:  # a signal; what the points have saved stays
        for number in left.values():
            if is_over(missing[number]):
                noted.stop(number)
        raise
    for number in left.values():
        noted.end(number, _result(rows[number], missing[number]))


def _result(row: Point, job: Job) -> Point:
    """Return the row of a point that an engine has run."""
    try:
        return row_of(row.overrides, job.recipe, job.folder, result_of(job))
    except (PointFailedError, PointLostError) as error:
        return _failed(row, error, 0.0)


def _say_finished(number: int, rows: Sequence[Point], job: Job) -> None:
    say(f"point {number + 1} of {len(rows)}: {' '.join(rows[number].overrides)}")
    say(f"finished before: {job.folder}")


def _groups(here: Mapping[int, Recipe], shared: Shared) -> list[tuple[int, ...]]:
    """Return the numbers of the points that train as one."""
    numbers, recipes = list(here), list(here.values())
    models = [_proved(recipe, shared) for recipe in recipes]
    groups = plan_fusion(recipes, models).groups
    return [
        tuple(numbers[place] for place in group[start : start + AT_ONCE])
        for group in groups
        for start in range(0, len(group), AT_ONCE)
    ]


@dataclass(frozen=True)
class _Noted:
    """The manifest's rows of this call; earlier ones stand before them."""

    manifest: Manifest
    first: int

    def begin(self, number: int) -> None:
        self.manifest.begin(self.first + number)

    def end(self, number: int, row: Point) -> None:
        self.manifest.end(self.first + number, row)

    def stop(self, number: int) -> None:
        self.manifest.stop(self.first + number)


def _run_unit(
    unit: Mapping[int, Job],
    rows: Sequence[Point],
    noted: _Noted,
    shared: Shared,
) -> None:
    """Run one point, or several as one; those that this does not end run by themselves."""
    left = dict(unit)

    def ended(number: int, found: dict[str, Any] | Exception, seconds: float) -> None:
        job, row = left.pop(number), rows[number]
        if isinstance(found, Exception):
            shared.forget()  # whatever it has touched, the others do not see
            noted.end(number, _failed(row, found, seconds))
        else:
            noted.end(number, row_of(row.overrides, job.recipe, job.folder, found))

    for number in unit:
        noted.begin(number)
    try:
        if len(unit) > 1:
            with _or_one_by_one(shared):
                train_fused(unit, shared, say, ended)
        for number, job in list(left.items()):
            _run_alone(number, job, shared, ended)
    except KeyboardInterrupt:  # a signal; what the points have saved stays
        for number in left:
            noted.stop(number)
        raise


@contextlib.contextmanager
def _or_one_by_one(shared: Shared) -> Iterator[None]:
    """Let what ends training as one, such as too little memory, end no point."""
    try:
        yield
    except Exception as error:
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        say(f"not as one, but one by one: {error}")
        shared.forget()


def _run_alone(number: int, job: Job, shared: Shared, ended: Ended) -> None:
    start = time.perf_counter()
    try:
        record = _trained(job, shared)
    except Exception as error:  # one bad point is a row: the others must go on
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        ended(number, error, time.perf_counter() - start)
    else:
        ended(number, record, time.perf_counter() - start)


def _failed(row: Point, error: Exception, seconds: float) -> Point:
    say(f"failed: {error}")
    text = str(error).splitlines()
    return replace(
        row, state=FAILED, seconds=seconds, error=text[0] if text else type(error).__name__
    )


def _is_here(job: Job) -> bool:
    """Tell whether a point runs in this process."""
    return not job.recipe.sweep.isolate and num_devices(job.recipe) == 1


def _trained(job: Job, shared: Shared) -> dict[str, Any]:
    """Return the record of a point, trained here or in processes of its own."""
    if _is_here(job):
        return train_recipe(job.recipe, job.folder, shared=shared, say=say, **job.options).record
    if not job.recipe.sweep.isolate:
        return train_on(job, ALONE)
    run_apart(plan_point(job), log=False)
    return result_of(job)


def refuse_failed(rows: Sequence[Point]) -> None:
    """Refuse to call a sweep done in which points failed.

    Raises:
        SweepFailedError: Some did; the others are done.
    """
    failed = sum(row.state == FAILED for row in rows)
    if failed:
        raise SweepFailedError(failed=failed, total=len(rows))


def prove_all(recipes: Sequence[Recipe], shared: Shared) -> None:
    """Compile every point without weights or data, once for all that differ in numbers alone.

    Raises:
        Problems: Points that cannot be compiled, or could not be trained.
    """
    errors: dict[str, TLCompileError] = {}
    for recipe in recipes:
        try:
            classes = shared.known_classes(recipe)
            model = _proved(recipe, shared)
            refuse_other_classes(recipe, model)
            refuse_untrainable(recipe, model, classes, swept=True)
        except TLCompileError as error:
            members = error.errors if isinstance(error, Problems) else (error,)
            errors.update({str(member): member for member in members})
    raise_problems(errors.values())


def _proved(recipe: Recipe, shared: Shared) -> CompiledModel:
    return shared.proved(recipe, shared.known_classes(recipe) or PLACEHOLDER_CLASSES)


def sweep_folder(recipes: Sequence[Recipe]) -> Path:
    """Return the sweep's folder: the same points, the same folder."""
    digest = hashlib.sha256(" ".join(map(recipe_digest, recipes)).encode()).hexdigest()[:8]
    return sweeps_above(recipes[0]) / f"{recipes[0].name}-{digest}"


def sweeps_above(recipe: Recipe) -> Path:
    """Return the folder above the folders of sweeps."""
    return Path("sweeps" if recipe.run.output_dir == "runs" else recipe.run.output_dir)


def folder_name(overrides: tuple[str, ...]) -> str:
    """Return the name of a point's folder inside its sweep's."""
    text = ",".join(overrides)
    name = re.sub(r"[^A-Za-z0-9_.=,-]", "_", text)
    # Two points whose names differ in other characters alone keep two folders.
    suffix = (
        "" if name == text and len(name) < 100 else hashlib.sha256(text.encode()).hexdigest()[:8]
    )
    return f"{name[:90]}-{suffix}" if suffix else name
