"""Read a run's folder for its page: record, curves, classes, mistakes, the compiled model."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlcompile.errors.base import TLCompileError, listed
from tlcompile.model.compiled import CompiledModel
from tlcompile.passes.lookup import shown_point
from tlcompile.recipe.finished import FinishedRun, read_run
from tlcompile.recipe.freeze import Freeze
from tlcompile.recipe.schema import Recipe
from tlcompile.report.graph_page import graph_figure
from tlcompile.report.pages import (
    ClassRow,
    Command,
    Epoch,
    Output,
    RunData,
    SplitScore,
    Table,
)
from tlcompile.run.folder import CONFUSION, METRICS, recipe_digest
from tlcompile.run.plan_text import shown_rate, shown_schedule
from tlcompile.run.prove import compile_phases
from tlcompile.run.rates import phase_names, rates_of
from tlcompile.run.report_samples import headline, predicted_again
from tlcompile.training.metrics import Score

_NAMES = {"regression": "numbers", "multilabel": "labels"}  # what the outputs are; else classes
RATES = ("phase", "trains", "parameters", "optimizer", "lr", "decay", "schedule", "epochs", "batch")


def run_data(
    folder: Path, *, images: bool = True, workers: int = 2, models: Sequence[CompiledModel] = ()
) -> RunData:
    """Return what the page of a finished run shows.

    Args:
        folder: The run's, or its bundle's alone, which has no curves.
        images: Whether validation images are predicted again, to show those that are wrong.
        workers: Threads that decode images.
        models: Of each phase, where they are at hand; else the recipe is compiled again.

    Raises:
        UnfinishedRunError: It has not saved its model.
        NotABundleError: It is something else than a run.
        DamagedFileError: A file is not as it was written.
    """
    run = read_run(folder)
    record, recipe = run.record, run.recipe
    best = record["best"]
    split = "val" if best["val"] else "train"
    models, note = (models, "") if models else _models(run)
    predicted, why_not = predicted_again(run, workers) if images else ((), "")
    return RunData(
        name=recipe.name,
        folder=str(folder),
        headline=f"{Score.from_data(best[split]).headline()}, best epoch {best['epoch']}",
        facts=_facts(run),
        epochs=read_epochs(folder),
        monitor=record["monitor"],
        best=best["epoch"],
        reading=_reading(record),
        scores=_scores(record),
        outputs=_outputs(folder, record),
        predicted=predicted,
        predicted_note=why_not,
        figures=_figures(recipe, models),
        graph_note=note,
        rates=_rates(recipe, models),
        proofs=_several(record["freeze_proof"]),
        origin=origin(record),
        recipe=run.read("recipe.yaml").decode(),
        reproduce=Command(reproduce(folder, recipe), "Train it again:"),
        following=_following(folder, recipe, images),
    )


def read_epochs(folder: Path) -> tuple[Epoch, ...]:
    """Return metrics.csv; nothing where there is none. A line that a kill has cut is left out."""
    try:
        text = (folder / METRICS).read_text(encoding="utf-8")
    except OSError:
        return ()
    return tuple(filter(None, map(_epoch, csv.DictReader(io.StringIO(text, newline="")))))


def _epoch(row: Mapping[str, str | None]) -> Epoch | None:
    try:
        values = {name: float(cell) for name, cell in row.items() if cell and "/" in name}
        return Epoch(number=int(row["epoch"] or ""), phase=row["phase"] or "", values=values)
    except (KeyError, ValueError):
        return None


def reproduce(folder: Path, recipe: Recipe) -> str:
    """Return the command that trains a run again; its recipe has every override in it."""
    words = f"tlcompile train {shlex.quote(str(folder / 'recipe.yaml'))}"
    if not _named_by_recipe(folder, recipe):
        return words  # a sweep's point: it becomes a run of its own
    return f"{words}{_place(folder)} --again"


def _named_by_recipe(folder: Path, recipe: Recipe) -> bool:
    return folder.name.startswith(f"{recipe.name}-{recipe_digest(recipe)}")


def _place(folder: Path) -> str:
    above = str(folder.parent)
    return "" if above == "runs" else f" output_dir={shlex.quote(above)}"


def _following(folder: Path, recipe: Recipe, images: bool) -> tuple[Command, ...]:
    where = shlex.quote(str(folder))
    told = "This page with the validation images that it gets wrong:"
    return (
        *(() if images else (Command(f"tlcompile report {where}", told),)),
        Command(f"tlcompile predict {where} IMAGE_OR_FOLDER", "What is on an image:"),
        Command(f"tlcompile evaluate {where} FOLDER", "Judge it on other images:"),
        Command(f"{reproduce(folder, recipe).removesuffix(' --again')} -m fine_tune.seed=0,1,2",
                "How much the seed matters:"),
    )  # fmt: skip


def _facts(run: FinishedRun) -> tuple[tuple[str, str], ...]:
    record, recipe = run.record, run.recipe
    base = record["base"]
    names = list(record["classes"])
    images = {name: _count(found) for name, found in (record.get("images") or {}).items()}
    best = record["best"]
    return (
        ("base", f"{base['model']}, weights {base['weights']}{_from_run(base)}"),
        ("frozen", frozen_words(recipe)),
        ("task", listed([f"{n}: {t}" if n else t for n, t in _tasks(record).items()], 8)),
        (
            _NAMES.get(record["task"], "classes"),
            f"{len(names)}: {listed(names, 8)}" if names else "",
        ),
        ("images", ", ".join(f"{count:,} {name}" for name, count in images.items() if count)),
        ("trains", f"{record['trainable']:,} parameters"),
        ("took", f"{record['seconds']:.1f} s on {record['device']}"),
        ("chosen by", f"{record['monitor']}, best at epoch {best['epoch']}"),
    )


def _from_run(base: Mapping[str, Any]) -> str:
    return f", from run {base['run']}" if base.get("run") else ""


def _count(found: Any) -> int:
    return sum(found.values()) if isinstance(found, dict) else int(found or 0)


def frozen_words(recipe: Recipe) -> str:
    """Word what is frozen: 'layer3', 'only layer3', 'none'; of phases 'head: layer3; all: none'."""
    phases = recipe.fine_tune.phases or ()
    words = [_frozen(freeze) for _key, freeze in recipe.freezes()]
    named = [f"{phase.name}: {one}" for phase, one in zip(phases, words, strict=False)]
    return "; ".join(named or words)


def _frozen(freeze: Freeze) -> str:
    alone = freeze.only and freeze.upto == ("none",)
    upto = "" if alone else " + ".join(map(shown_point, freeze.upto))
    only = " + ".join(map(shown_point, freeze.only))
    return " and ".join(filter(None, [upto, only and f"only {only}"])) or "none"


def _reading(record: Mapping[str, Any]) -> tuple[str, str, str] | None:
    curves = record.get("curves")
    return (curves["verdict"], curves["evidence"], curves["advice"]) if curves else None


def _scores(record: Mapping[str, Any]) -> tuple[SplitScore, ...]:
    found = {**{k: record["best"][k] for k in ("train", "val")}, "test": record.get("test")}
    return tuple(_score(name, data) for name, data in found.items() if data)


def _score(split: str, data: Mapping[str, Any]) -> SplitScore:
    score = Score.from_data(data)
    values = {"loss": score.loss, **score.values}
    for name, part in score.parts.items():
        values |= {f"{name}/{metric}": value for metric, value in part.values.items()}
        values |= {f"{name}/accuracy": part.accuracy} if part.correct is not None else {}
    ends = None
    if score.correct is not None:
        values, ends = {"accuracy": score.accuracy, **values}, score.interval()
    return SplitScore(split, score.count, values, ends)


def _outputs(folder: Path, record: Mapping[str, Any]) -> tuple[Output, ...]:
    """Return the classes of each output, with the matrix that the folder has."""
    classes = record["best"].get("classes") or {}
    several = classes and all("n" not in rows for rows in classes.values())
    by_output = classes if several else {"": classes} if classes else {}
    tasks = _tasks(record)
    return tuple(
        Output(name, tuple(ClassRow(word, r["n"], r["correct"], r["recall"], r["precision"], r["f1"])
                           for word, r in rows.items()), _matrix(folder, name), tasks.get(name, ""))
        for name, rows in by_output.items()
    )  # fmt: skip


def _tasks(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the task of each output; the only one is called ""."""
    outputs = record.get("outputs") or {"": {"task": record["task"]}}
    return {name: str(one["task"]) for name, one in outputs.items()}


def _matrix(folder: Path, output: str) -> tuple[tuple[int, ...], ...]:
    stem, dot, ending = CONFUSION.partition(".")
    path = folder / (f"{stem}-{output}{dot}{ending}" if output else CONFUSION)
    if not path.is_file():
        return ()
    rows = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
    return tuple(tuple(int(cell) for cell in row[1:]) for row in list(rows)[1:])


def _models(run: FinishedRun) -> tuple[list[CompiledModel], str]:
    """Compile each phase without weights; return them, and why there are none."""
    if run.on_own_module:
        return [], "The graph is not drawn: the base was your own module."
    try:
        proof = compile_phases(run.recipe, len(run.classes))
    except TLCompileError as error:
        return [], f"The graph is not drawn: {headline(error)}."
    return [proof.model, *proof.later], ""


def _figures(recipe: Recipe, models: Sequence[CompiledModel]) -> tuple[str, ...]:
    names = phase_names(recipe) if len(models) > 1 else [""]
    return tuple(
        graph_figure(model.summary, model.boundary, _figure_title(name, model))
        for name, model in zip(names, models, strict=False)
    )


def _figure_title(phase: str, model: CompiledModel) -> str:
    trains = sum(parameter.numel() for _, parameter in model.trainable())
    frozen = sum(parameter.numel() for parameter in model.parameters()) - trains
    counts = f"{trains:,} parameters train, {frozen:,} are frozen"
    return f"{f'phase {phase}: ' if phase else ''}{model.summary.model}: {counts}"


def _rates(recipe: Recipe, models: Sequence[CompiledModel]) -> Table:
    rows = tuple(
        (
            rate.phase, listed(rate.trains, 4), f"{rate.parameters:,}", rate.optimizer,
            shown_rate(rate), "-" if rate.weight_decay is None else f"{rate.weight_decay:g}",
            shown_schedule(rate), str(rate.epochs), str(rate.batch_size),
        )
        for rate in rates_of(recipe, models)
    )  # fmt: skip
    return RATES, rows


def _several(proof: Any) -> tuple[str, ...]:
    return tuple(proof) if isinstance(proof, list) else (str(proof),)


def origin(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return versions, digests and the device of a record, as (word, value)."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    images = record.get("images_sha256") or {}
    threads = record["threads"]
    return (
        ("versions", versions),
        ("device", f"{record['device']}, {threads} thread{'s' if threads != 1 else ''}"),
        ("precision", str(record.get("precision", ""))),
        ("seed", str(record["seed"])),
        ("base sha256", str(record["base"]["sha256"])),
        *((f"{name} sha256", str(digest)) for name, digest in images.items()),
        ("licence", str(record["base"].get("licence") or "")),
    )
