"""Judge a finished run's best weights on labelled images: its own validation split, or others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tlcompile.bundle import Bundle, load_bundle
from tlcompile.data.samples import Samples
from tlcompile.features.sources import Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.finished import find_run
from tlcompile.run.device import available_devices, exactly
from tlcompile.run.features import SourceBuilder
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.labelled import labelled, own_images
from tlcompile.run.objective import objective_of_bundle
from tlcompile.run.say import say, table
from tlcompile.run.splits import Say, naming_all_bad
from tlcompile.training import judged
from tlcompile.training.judged import ClassScore, Judged
from tlcompile.training.loop import predict

SHOWN = 20  # classes, up to which a confusion matrix fits on a screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", help="a run's folder, or a unique prefix of its name")
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER|CSV",
        help="labelled as for training; default: the run's validation images",
    )
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")


def run(options: argparse.Namespace) -> int:
    """Print the score, and each class alone."""
    bundle = load_bundle(find_run(options.run))
    told = (lambda _line: None) if options.json else say
    samples = _samples(bundle, options.folder, told)
    what = options.folder or "the run's own validation images"
    with naming_all_bad(samples.ids if options.folder else (), options.workers):
        found = judge(bundle, samples, workers=options.workers, say=told)
    if options.json:
        say(json.dumps(as_data(found)))
        return 0
    for name, classes in found.classes.items():
        _show_classes(name, classes)
        if name in found.confusion and len(classes) <= SHOWN:
            _show_confusion(classes, found.confusion[name].tolist())
    say("")
    say(f"{found.score.told()}, on {what}")
    return 0


def as_data(found: Judged) -> dict[str, object]:
    """Return what --json prints; of several outputs the matrices stand with each."""
    data = found.as_data()
    for name, matrix in found.confusion.items():
        place = data["outputs"][name] if name else data
        place["confusion"] = matrix.tolist()
    return data


def _samples(bundle: Bundle, place: str | None, told: Say) -> Samples:
    if place is None:
        return own_images(bundle, told)
    return labelled(bundle, place, objective_of_bundle(bundle).goals, told)


def judge(
    bundle: Bundle, samples: Samples, *, workers: int, say: Say = lambda _line: None
) -> Judged:
    """Return the score of all samples, and of each class."""
    model, source = _opened(bundle, samples, workers, say)
    device = next(model.parameters()).device
    objective = objective_of_bundle(bundle, device)
    return judged.judge(model, source, objective=objective, batch_size=bundle.chunk_size)


def outputs_of(
    bundle: Bundle, samples: Samples, *, workers: int, say: Say = lambda _line: None
) -> Iterator[tuple[Any, Any]]:
    """Return what the model says of samples, and what it is compared with, batch by batch."""
    model, source = _opened(bundle, samples, workers, say)
    return predict(model, source, batch_size=bundle.chunk_size)


def _opened(
    bundle: Bundle, samples: Samples, workers: int, say: Say
) -> tuple[CompiledModel, Source]:
    """Return the model and the rows it reads; its frozen part comes by way of the store."""
    exactly()
    keep_freed_memory()
    device = torch.device(available_devices()[0])
    model = bundle.model.to(device)
    machine = bundle.recipe.run.model_copy(update={"workers": workers})
    recipe = bundle.recipe.model_copy(update={"run": machine})
    precision = bundle.record.get("precision")
    features = SourceBuilder(recipe, bundle.preprocessing, model, device, say, precision)
    return model, features.sources({"images": samples})["images"]


def _show_classes(output: str, classes: Sequence[ClassScore]) -> None:
    columns = ("class", "correct", "n", "recall", "precision", "f1")
    there = [one for one in classes if one.count or one.taken]
    rows = [
        (one.name, one.right, one.count, *map(_percent, (one.recall, one.precision, one.f1)))
        for one in there
    ]
    table(output, columns, rows)


def _show_confusion(classes: Sequence[ClassScore], matrix: Sequence[Sequence[int]]) -> None:
    there = [place for place, one in enumerate(classes) if one.count or one.taken]
    columns = ("taken for", *(classes[place].name for place in there))
    rows = [(classes[i].name, *(matrix[i][j] for j in there)) for i in there]
    table("confusion: a row is what it is", columns, rows)


def _percent(share: float) -> str:
    return "" if share != share else f"{100 * share:.1f} %"  # nan: a share of nothing
