"""Say what is on images: files, or folders of images, by a finished run's best weights."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tlcompile.bundle import Bundle, load_bundle
from tlcompile.data.folder import ENDINGS, file_samples
from tlcompile.data.loading import load_images
from tlcompile.durable.files import write_file
from tlcompile.errors.data import NoImagesError
from tlcompile.errors.finding import MissingImageError
from tlcompile.features.hard import EXACT, open_prefix
from tlcompile.features.prefix import chunks_of
from tlcompile.features.sources import trainable
from tlcompile.recipe.finished import find_run
from tlcompile.run.device import available_devices, exactly
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.say import progress, say, table
from tlcompile.run.splits import naming_all_bad
from tlcompile.training.losses import probabilities


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", help="a run's folder, or a unique prefix of its name")
    parser.add_argument("images", nargs="+", help="image files, or folders of images")
    parser.add_argument("--out", metavar="FILE.csv", help="also write every probability")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")


def run(options: argparse.Namespace) -> int:
    """Print one line an image."""
    bundle = load_bundle(find_run(options.run))
    paths = find_images(options.images)
    with naming_all_bad(list(map(str, paths)), options.workers):
        chances = predict_images(bundle, paths, workers=options.workers)
    rows = [(str(path), *best_of(bundle, row)) for path, row in zip(paths, chances, strict=True)]
    if options.out:
        write_file(Path(options.out), _csv(bundle, paths, chances))
    if options.json:
        say(json.dumps([_as_data(bundle, p, c) for p, c in zip(paths, chances, strict=True)]))
    else:
        table("", ("image", "class", "probability"), rows)
    return 0


def best_of(bundle: Bundle, chances: Tensor) -> tuple[str, str]:
    """Return the most likely class and its probability."""
    index = int(chances.argmax())
    return bundle.classes[index], f"{float(chances[index]):.3f}"


def find_images(names: Sequence[str]) -> list[Path]:
    """Return the image files that names stand for; folders are searched, in sorted order.

    Raises:
        MissingImageError: There is no such file or folder.
        NoImagesError: A folder has no image.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in ENDINGS]
            if not inside:
                raise NoImagesError(path=str(path), loose=0)
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            near = sorted(map(str, path.parent.glob("*")))
            raise MissingImageError(path=str(path), near=tuple(near))
    return found


def predict_images(bundle: Bundle, paths: Sequence[Path], *, workers: int) -> Tensor:
    """Return the probabilities of every image.

    Shape:
        out: (N, classes), on the CPU
    """
    channels = bundle.preprocessing.channels
    names = tuple(map(str, paths))
    samples = file_samples(names, (0,) * len(names), bundle.classes, channels)
    exactly()
    keep_freed_memory()
    device = torch.device(available_devices()[0])
    model = bundle.model.to(device).eval()
    precision = bundle.record.get("precision", EXACT)  # as the trainable part has learned
    size, count = bundle.chunk_size, len(paths)
    prefix = open_prefix(model, size, precision, device, images=count)
    parts = []
    with progress("images", len(paths)) as advance:
        for chunk in chunks_of(range(len(paths)), prefix.chunk_size):
            images = load_images(samples, chunk, bundle.preprocessing, workers=workers)
            with torch.no_grad():
                logits = model.suffix(*trainable(prefix(images)))
            parts.append(probabilities(bundle.task, logits).cpu())
            advance(len(chunk))
    return torch.cat(parts)


def _csv(bundle: Bundle, paths: Sequence[Path], chances: Tensor) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "class", *bundle.classes))
    for path, row in zip(paths, chances.tolist(), strict=True):
        best = bundle.classes[row.index(max(row))]
        writer.writerow((path, best, *(f"{chance:.6f}" for chance in row)))
    return text.getvalue().encode()


def _as_data(bundle: Bundle, path: Path, chances: Tensor) -> dict[str, object]:
    named = dict(zip(bundle.classes, chances.tolist(), strict=True))
    return {"image": str(path), "class": max(named, key=named.__getitem__), "probabilities": named}
