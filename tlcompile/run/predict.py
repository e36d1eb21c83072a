"""Say what is on images: files, or folders of images, by a finished run's best weights."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tlcompile.bundle import Bundle, load_bundle
from tlcompile.data.folder import ENDINGS, file_samples
from tlcompile.data.loading import load_images
from tlcompile.durable.files import write_file
from tlcompile.errors.finding import (
    FileExistsAlreadyError,
    MissingImageError,
    NothingToPredictError,
)
from tlcompile.features.hard import EXACT, open_prefix
from tlcompile.features.prefix import chunks_of
from tlcompile.features.sources import trainable
from tlcompile.recipe.finished import find_run
from tlcompile.run.answers import as_data, cells, columns, worded
from tlcompile.run.device import available_devices, exactly
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.objective import objective_of_bundle
from tlcompile.run.say import progress, say, table
from tlcompile.run.splits import naming_all_bad
from tlcompile.training.goal import Goal

Goals = Mapping[str, Goal]
Meanings = Mapping[str, Tensor]  # by output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", help="a run's folder, or a unique prefix of its name")
    parser.add_argument("images", nargs="+", help="image files, or folders of images")
    parser.add_argument(
        "--out",
        metavar="FILE.csv|FOLDER",
        help="also write every probability or number; of segmentation a PNG an image into a folder",
    )
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")


def run(options: argparse.Namespace) -> int:
    """Print one line an image."""
    bundle = load_bundle(find_run(options.run))
    goals = objective_of_bundle(bundle).goals
    paths = find_images(options.images)
    maps = goals[""].task == "segmentation" if "" in goals else False
    masks = _mask_files(Path(options.out), paths) if options.out and maps else []
    _refuse_existing(masks or ([Path(options.out)] if options.out else []))
    with naming_all_bad(list(map(str, paths)), options.workers):
        found = predict_images(bundle, paths, workers=options.workers)
    each = [{name: found[name][i] for name in goals} for i in range(len(paths))]
    if masks:
        _write_masks(masks, found[""])
    elif options.out:
        write_file(Path(options.out), _csv(goals, paths, each))
    if options.json:
        data = [_as_data(goals, path, one) for path, one in zip(paths, each, strict=True)]
        for one, mask in zip(data, masks, strict=False):
            one["mask"] = str(mask)
        say(json.dumps(data))
    else:
        _show(goals, paths, each)
    return 0


def _show(goals: Goals, paths: Sequence[Path], each: Sequence[Meanings]) -> None:
    sure = {"segmentation": "share", "regression": ""}
    heads = ["image"]
    for name, goal in goals.items():
        what = "values" if goal.task == "regression" else "class"
        heads += [name or what, sure.get(goal.task, "probability")]
    rows = [
        (str(path), *(cell for n, goal in goals.items() for cell in worded(goal, one[n])))
        for path, one in zip(paths, each, strict=True)
    ]
    # A number has no probability beside it.
    kept = [i for i, head in enumerate(heads) if head]
    table("", [heads[i] for i in kept], [tuple(row[i] for i in kept) for row in rows])


def find_images(names: Sequence[str]) -> list[Path]:
    """Return the image files that names stand for; folders are searched, in sorted order.

    Raises:
        MissingImageError: There is no such file or folder.
        NothingToPredictError: A folder has no image.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in ENDINGS]
            if not inside:
                raise NothingToPredictError(path=str(path))
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            near = sorted(map(str, path.parent.glob("*")))
            raise MissingImageError(path=str(path), near=tuple(near))
    return found


def predict_images(bundle: Bundle, paths: Sequence[Path], *, workers: int) -> Meanings:
    """Return what every image means, by output; the only one is called "".

    Shape:
        out: as `Goal.meaning`, on the CPU
    """
    channels = bundle.preprocessing.channels
    names = tuple(map(str, paths))
    samples = file_samples(names, (0,) * len(names), bundle.classes, channels)
    exactly()
    keep_freed_memory()
    device = torch.device(available_devices()[0])
    model = bundle.model.to(device).eval()
    goals = objective_of_bundle(bundle, device).goals
    precision = bundle.record.get("precision", EXACT)  # as the trainable part has learned
    size, count = bundle.chunk_size, len(paths)
    prefix = open_prefix(model, size, precision, device, images=count)
    parts: dict[str, list[Tensor]] = {name: [] for name in goals}
    with progress("images", len(paths)) as advance:
        for chunk in chunks_of(range(len(paths)), prefix.chunk_size):
            images = load_images(samples, chunk, bundle.preprocessing, workers=workers)
            with torch.no_grad():
                outputs = model.suffix(*trainable(prefix(images)))
            for name, goal in goals.items():
                parts[name].append(goal.meaning(outputs[name] if name else outputs).cpu())
            advance(len(chunk))
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _csv(goals: Goals, paths: Sequence[Path], each: Sequence[Meanings]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = [f"{n}/{c}" if n else c for n, goal in goals.items() for c in columns(goal)]
    writer.writerow(("image", *named))
    for path, one in zip(paths, each, strict=True):
        writer.writerow(
            (path, *(cell for n, goal in goals.items() for cell in cells(goal, one[n])))
        )
    return text.getvalue().encode()


def _mask_files(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Name the mask of every image; images of one name get a number behind it."""
    files: dict[Path, None] = {}
    for path in paths:
        numbers = (f"-{number}" for number in itertools.count(2))
        names = (folder / f"{path.stem}{n}.png" for n in itertools.chain([""], numbers))
        files[next(file for file in names if file not in files)] = None
    return list(files)


def _refuse_existing(files: Sequence[Path]) -> None:
    """Refuse to overwrite anything, before the first image is predicted.

    Raises:
        FileExistsAlreadyError: Something stands where one of them would be written.
    """
    for path in files:
        if os.path.lexists(path):
            raise FileExistsAlreadyError(path=str(path))


def _write_masks(files: Sequence[Path], masks: Tensor) -> None:
    """Write each map of classes as a grey PNG, as large as the model has seen the image."""
    for path, mask in zip(files, masks, strict=True):
        data = io.BytesIO()
        Image.fromarray(mask.numpy()).save(data, format="PNG")
        write_file(path, data.getvalue())


def _as_data(goals: Goals, path: Path, one: Meanings) -> dict[str, Any]:
    if "" in goals:
        return {"image": str(path), **as_data(goals[""], one[""])}
    return {"image": str(path), "outputs": {n: as_data(g, one[n]) for n, g in goals.items()}}
