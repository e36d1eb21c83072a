"""A run's folder: its name comes from the recipe, so that a re-queued job finds itself."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tlcompile.durable.files import append_line, make_folder, write_file
from tlcompile.durable.locks import take_lock
from tlcompile.errors.resume import RunBusyError
from tlcompile.errors.run import RunError, WriteFailedError
from tlcompile.model.compiled import TensorRow
from tlcompile.recipe.finished import find_run, read_run
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.schema import Recipe
from tlcompile.training.judged import ClassScore, Judged
from tlcompile.training.objective import Objective
from tlcompile.training.state import EpochRow

METRICS = "metrics.csv"
RECORD = "record.json"
TENSORS = "tensors.csv"
CLASSES = "classes.csv"
CONFUSION = "confusion.csv"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe with every default filled in, as plain data in the language's own keys.

    Without `run` and `sweep`, which are the machine's and no part of the recipe's identity.
    """
    data: dict[str, Any] = recipe.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"run", "sweep"}
    )
    if recipe.base.run is not None:
        data["base"].pop("weights")  # a run has its own; beside base.run it is refused
    if recipe.fine_tune.phases is not None:
        data["fine_tune"].pop("epochs")  # each phase has its own; beside phases it is refused
    for *sections, last in recipe.idle_beside_phases():  # the same
        section: Any = data
        for name in sections:
            section = section[name]
        section.pop(last, None)
    return data


def recipe_digest(recipe: Recipe) -> str:
    """Return 8 hex of what decides the result: not the name, nor what the machine decides."""
    data = resolved(recipe)
    data.pop("name", None)
    if recipe.base.run is not None:  # its weights decide, wherever it lies
        data["base"]["run"] = read_run(find_run(recipe.base.run)).weights_sha256
    data["features"].pop("cache", None)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_folder(recipe: Recipe) -> Path:
    """Return the folder of a recipe's run, which may not exist yet."""
    return Path(recipe.run.output_dir) / f"{recipe.name}-{recipe_digest(recipe)}"


def next_generation(folder: Path) -> Path:
    """Return the first free folder beside a recipe's own: name-2, name-3, ..."""
    number = 2
    while (folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return folder.with_name(f"{folder.name}-{number}")


def find_generation(folder: Path, *, again: bool) -> tuple[Path, dict[str, Any] | None]:
    """Find the newest generation of a run; with `again`, a free one where that is finished.

    An unfinished one goes on even with `again`, so that a job that is queued twice finds itself.

    Returns:
        Its folder, and its record where it is finished.
    """
    free = next_generation(folder)
    number = int(free.name.removeprefix(f"{folder.name}-"))
    newest = folder if number == 2 else folder.with_name(f"{folder.name}-{number - 1}")
    record = read_record(newest)
    return (free, None) if again and record is not None else (newest, record)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what a finished run recorded; None where the run is unfinished or absent."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return record if record.get("state") == "finished" else None


@contextlib.contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine from training in a folder meanwhile.

    Raises:
        RunBusyError: One does.
    """
    try:
        lock = take_lock(folder / "lock", remove=True)
    except WriteFailedError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in NO_LOCKS:
            raise
        yield  # a disk without locks: the user takes care
        return
    if lock is None:
        raise RunBusyError(path=folder)
    with lock:
        yield


def make_run_folder(recipe: Recipe, folder: Path) -> None:
    """Make a run's folder; what keeps it from being made is told of `run.output_dir`.

    Raises:
        RunError: It cannot be made there.
    """
    key = ("run", "output_dir")
    try:
        make_folder(folder)
    except RunError as error:
        error.key = key
        raise error.at(recipe.where(key) if recipe.writes(key) else None) from error.__cause__


def begin(
    folder: Path, recipe: Recipe, plan: str, tensors: Iterable[TensorRow], objective: Objective
) -> None:
    """Make the folder and write what is known before training."""
    make_folder(folder)
    write_record(folder, {"state": "running"})  # first: an old record must not speak for this run
    write_file(folder / "recipe.yaml", to_yaml(resolved(recipe)).encode())
    write_file(folder / "plan.txt", f"{plan}\n".encode())
    write_file(folder / TENSORS, tensor_lines(tensors).encode())
    write_file(folder / METRICS, _line(metric_columns(objective)).encode())


def metric_columns(objective: Objective) -> tuple[str, ...]:
    """Return the columns of metrics.csv; what the task has beyond its main metrics comes last."""
    trained = tuple(objective.trained)
    more = [name for name in objective.metrics if name not in trained]
    return (
        *("epoch", "phase"),
        *(f"train/{name}" for name in trained),
        *(f"val/{name}" for name in trained),
        *("lr", "seconds"),
        *(f"val/{name}" for name in more),
    )


def add_row(folder: Path, row: EpochRow, objective: Objective) -> None:
    """Append one epoch to metrics.csv."""
    append_line(folder / METRICS, _line(_cells(row, metric_columns(objective))).rstrip("\n"))


def _cells(row: EpochRow, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return an epoch's cells; empty where there was nothing to judge by."""
    own = {
        "epoch": str(row.epoch),
        "phase": row.phase,
        "lr": f"{row.lr:.6g}",
        "seconds": f"{row.seconds:.3f}",
    }
    unjudged = row.val is None
    return tuple(
        own.get(name) or ("" if unjudged and name[:4] == "val/" else f"{row.value(name):.6f}")
        for name in columns
    )


def rewrite_rows(folder: Path, rows: Iterable[EpochRow], objective: Objective) -> None:
    """Let metrics.csv have these epochs: a kill may have left one that no checkpoint knows."""
    write_file(folder / METRICS, _line(metric_columns(objective)).encode())
    for row in rows:
        add_row(folder, row, objective)


def write_judged(folder: Path, judged: Judged) -> None:
    """Write classes.csv, each class alone, and confusion.csv, which is taken for which.

    Of several outputs each has its own: classes-species.csv.
    """
    for name, classes in judged.classes.items():
        lines = [_line(_OF_A_CLASS), *(_line(tuple(_class_cells(one))) for one in classes)]
        write_file(_of_output(folder, CLASSES, name), "".join(lines).encode())
    for name, matrix in judged.confusion.items():
        words = [one.name for one in judged.classes[name]]
        rows = zip(words, matrix.tolist(), strict=True)
        lines = [_line(("class", *words)), *(_line((word, *row)) for word, row in rows)]
        write_file(_of_output(folder, CONFUSION, name), "".join(lines).encode())


_OF_A_CLASS = ("class", "n", "correct", "recall", "precision", "f1")


def _class_cells(one: ClassScore) -> Iterator[str]:
    """Yield a class's cells; empty where there is nothing to share."""
    yield one.name
    for value in one.as_data().values():
        yield "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)


def read_classes(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what classes.csv says of the best epoch, by class; of several outputs by output."""
    found = {}
    for path in sorted(folder.glob("classes*.csv")):
        rows = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""))
        found[path.stem.partition("-")[2]] = {row.pop("class"): _numbers(row) for row in rows}
    return found.get("", found)


def _numbers(row: dict[str, str]) -> dict[str, float | None]:
    whole = ("n", "correct")
    return {k: int(v) if k in whole else float(v) if v else None for k, v in row.items()}


def _of_output(folder: Path, file: str, output: str) -> Path:
    stem, dot, ending = file.partition(".")
    return folder / (f"{stem}-{output}{dot}{ending}" if output else file)


def tensor_lines(rows: Iterable[TensorRow]) -> str:
    """Return tensors.csv: each tensor, where it is from, and whether it moves."""
    columns = ("tensor", "kind", "shape", "was", "origin", "source", "init", "state")
    lines = [_line(columns)]
    for row in rows:
        sizes = (show_sizes(row.shape), show_sizes(row.was))
        lines.append(
            _line((row.name, row.kind, *sizes, row.origin, row.source, row.init, row.state))
        )
    return "".join(lines)


def show_sizes(shape: tuple[int, ...] | None) -> str:
    """Word the sizes of a tensor: '512x256x3x3'; one number is '1'."""
    return "" if shape is None else "x".join(map(str, shape)) or "1"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write record.json."""
    write_file(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def _line(cells: tuple[Any, ...]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
