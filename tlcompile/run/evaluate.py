"""Judge a finished run's best weights on labelled images: its own validation split, or a folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import torch

from tlcompile.bundle import Bundle, load_bundle
from tlcompile.data.folder import scan_folder
from tlcompile.data.samples import Samples
from tlcompile.errors.data import UnknownClassError
from tlcompile.recipe.finished import find_run
from tlcompile.run.device import available_devices, exactly
from tlcompile.run.features import SourceBuilder
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.say import say, table
from tlcompile.run.splits import Say, naming_all_bad, open_splits
from tlcompile.run.train import as_data
from tlcompile.training.loop import predict
from tlcompile.training.losses import build_loss, predicted
from tlcompile.training.metrics import Score


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", help="a run's folder, or a unique prefix of its name")
    parser.add_argument(
        "folder", nargs="?", help="class folders; default: the run's validation images"
    )
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")


def run(options: argparse.Namespace) -> int:
    """Print accuracy, and accuracy by class."""
    bundle = load_bundle(find_run(options.run))
    samples = _labelled(bundle, options.folder) if options.folder else _own(bundle)
    what = options.folder or "the run's own validation images"
    with naming_all_bad(samples.ids if options.folder else (), options.workers):
        told = (lambda _line: None) if options.json else say
        score, by_class = judge(bundle, samples, workers=options.workers, say=told)
    if options.json:
        say(json.dumps({**as_data(score), "classes": {c: as_data(s) for c, s in by_class.items()}}))
        return 0
    rows = [(c, s.correct, s.count, f"{100 * s.accuracy:.1f} %") for c, s in by_class.items()]
    table("", ("class", "correct", "n", "accuracy"), rows)
    say("")
    say(f"accuracy {score.worded()}, loss {score.loss:.4f}, on {what}")
    return 0


def _own(bundle: Bundle) -> Samples:
    """Return the validation images that the run was judged by."""
    splits = open_splits(bundle.recipe, bundle.preprocessing.channels, say, bundle.classes)
    return splits.val or splits.train


def _labelled(bundle: Bundle, folder: str) -> Samples:
    """Return a folder's images with the bundle's labels, mapped by name.

    Raises:
        UnknownClassError: The folder has a class that the model does not know.
    """
    splits = scan_folder(folder, bundle.preprocessing.channels)
    samples = splits.get("all") or splits.get("test") or splits.get("val") or splits["train"]
    unknown = tuple(c for c, n in samples.counts().items() if n and c not in bundle.classes)
    if unknown:
        raise UnknownClassError(names=unknown, classes=bundle.classes, place=folder)
    labels = tuple(bundle.classes.index(samples.classes[label]) for label in samples.labels)
    return replace(samples, labels=labels, classes=bundle.classes)


def judge(
    bundle: Bundle, samples: Samples, *, workers: int, say: Say = lambda _line: None
) -> tuple[Score, dict[str, Score]]:
    """Return the score of all samples, and of each class that has any."""
    logits, labels = logits_of(bundle, samples, workers=workers, say=say)
    loss = build_loss(bundle.task)
    by_class = {}
    for index, name in enumerate(bundle.classes):
        mine = labels == index
        if bool(mine.any()):
            by_class[name] = _score(bundle.task, loss, logits[mine], labels[mine])
    return _score(bundle.task, loss, logits, labels), by_class


def logits_of(
    bundle: Bundle, samples: Samples, *, workers: int, say: Say = lambda _line: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the model says of samples, and their labels; its frozen part by way of the store.

    Shape:
        out: (N, logits) and (N,), on the CPU
    """
    exactly()
    keep_freed_memory()
    device = torch.device(available_devices()[0])
    model = bundle.model.to(device)
    machine = bundle.recipe.run.model_copy(update={"workers": workers})
    recipe = bundle.recipe.model_copy(update={"run": machine})
    precision = bundle.record.get("precision")
    features = SourceBuilder(recipe, bundle.preprocessing, model, device, say, precision)
    source = features.sources({"images": samples})["images"]
    computed = predict(model, source, batch_size=bundle.chunk_size)
    return torch.cat([logits.cpu() for logits, _ in computed]), source.labels


def _score(task: str, loss: object, logits: torch.Tensor, labels: torch.Tensor) -> Score:
    assert callable(loss)
    correct = int((predicted(task, logits) == labels).sum())
    return Score(float(loss(logits, labels)), correct, len(labels))
