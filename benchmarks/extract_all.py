"""Extracting at every freeze point at once, against a plain inference epoch (P8).

    python benchmarks/extract_all.py                                  # a minute or two
    python benchmarks/extract_all.py --model resnet50 --images 397    # the bar's own size

One pass of the model stores the outputs of the stem, of the four stages and of the pooling, verified
and durable, with the prepared images; the baseline decodes the same files by ImageFolder and
DataLoader, runs the whole model in eval mode without gradients, and keeps nothing but the number of
right answers. The default's 96 and 64 images are whole chunks of 32; a part of one costs as much as a
whole one. Each side runs in a process of its own; building the model does not count.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import cached
import torch
import tutorial
from pictures import add_arguments, picture_folder
from side import Pause, Side, Spent, median
from table import Row, show_table
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import datasets
from tutorial import Settings

from tlcompile import Recipe
from tlcompile.compiler import compile_opened
from tlcompile.recipe.load import complete
from tlcompile.run.features import Features
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.splits import open_splits
from tlcompile.zoo.open import open_base

POINTS = ("maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
CHUNK = 32  # images a pass, on both sides
WANTED = {"exact": "<= 1.15", "fp32-fused": "-", "fast": "-"}


def inference_epochs(pause: Pause, settings: Settings) -> None:
    """Run the whole model over every image, as one does to judge it; every other step is an epoch."""
    model = tutorial.build(settings)
    while True:
        pause()
        inference_epoch(settings, model)
        pause()


def inference_epoch(settings: Settings, model: nn.Module) -> None:
    """Run the whole model over every image once."""
    images = [
        datasets.ImageFolder(settings.folder / split, tutorial.transform(augment=False))
        for split in ("train", "val")
    ]
    loader = DataLoader(ConcatDataset(images), batch_size=CHUNK, num_workers=settings.workers)
    model.eval()
    correct = 0
    with torch.no_grad():
        for inputs, labels in loader:
            correct += int((model(inputs).argmax(1) == labels).sum())


def recipe_of(settings: Settings, points: tuple[str, ...], precision: str) -> Recipe:
    """Write a recipe whose model returns the outputs of all these points, and learns nothing."""
    sections = {
        "base": {"model": settings.model, "weights": str(settings.weights), "size": cached.SIDE},
        "freeze": {"upto": [points[-1]]},
        "outputs": list(points),
        "head": "keep",
        "data": {"folder": str(settings.folder)},
        "features": {"precision": precision, "batch_size": CHUNK},
        "run": {"device": "cpu", "workers": settings.workers},
    }
    return complete(Recipe.model_validate(sections))


def extractions(pause: Pause, settings: Settings, points: tuple[str, ...], precision: str) -> None:
    """Extract into an empty cache, again and again; every other step is an extraction."""
    recipe = recipe_of(settings, points, precision)
    opened = open_base(recipe)
    splits = open_splits(recipe, 3, print)
    model = compile_opened(recipe, opened, len(splits.classes))
    keep_freed_memory()  # as every run does
    while True:
        with cached.cold_cache():
            features = Features(
                recipe, opened.preprocessing, model, torch.device("cpu"), lambda _line: None
            )
            pause()
            features.sources(splits.named())
            pause()


def measure(
    settings: Settings, points: tuple[str, ...], precisions: list[str], rounds: int
) -> list[Row]:
    """Run the epoch and each precision in turn; return a row for each precision."""
    sides = {"plain": Side(inference_epochs, settings)}
    for precision in precisions:
        sides[precision] = Side(extractions, settings, points, precision)
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    with ExitStack() as stack:
        running = {name: stack.enter_context(side) for name, side in sides.items()}
        for _ in range(rounds + 1):
            for name, side in running.items():
                side.step()  # it gets ready
                found[name].append(side.step())
    plain, *ours = (median(times[1:]) for times in found.values())
    work = f"extract {settings.model} at {', '.join(points)}"
    return [
        Row("P8", f"{work}, {precision}", plain, times, WANTED[precision], inverse=True)
        for precision, times in zip(precisions, ours, strict=True)
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="a ResNet of torchvision")
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument(
        "--workers", type=int, default=0, help="processes (baseline) or threads (ours) that decode"
    )
    parser.add_argument("--rounds", type=int, default=3, help="A B A B: 2")
    parser.add_argument("--precisions", nargs="+", default=list(WANTED), choices=list(WANTED))
    add_arguments(parser, images=160)
    options = parser.parse_args()
    with (
        TemporaryDirectory() as made,
        picture_folder(options.folder, options.images) as folder,
    ):
        weights = Path(made) / "weights.safetensors"
        tutorial.random_weights(options.model, weights)
        settings = Settings(folder, weights, options.model, workers=options.workers)
        points = tuple(sorted(options.points, key=POINTS.index))
        rows = measure(settings, points, options.precisions, options.rounds)
    show_table(rows)
    print(f"medians of {options.rounds} rounds in turn; ratios are ours / plain, the limit is 1")


if __name__ == "__main__":
    main()
