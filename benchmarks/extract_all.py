"""Extracting at every freeze point at once, against plain inference epochs (P8).

    python benchmarks/extract_all.py                                  # some minutes
    python benchmarks/extract_all.py --model resnet50 --images 397    # the bar's own size

The recipes of all freeze points are compiled together: one pass stores the outputs of the stem, of
the four stages and of the pooling, verified and durable, with the prepared images. Two baselines
keep nothing: torch's, which decodes the same files by ImageFolder and DataLoader and runs the whole
model in eval mode; and our own pass over the same frozen part, so that what is left is the cost of
keeping. The default's 96 and 64 images are whole chunks of 32; a part of one costs as much as a whole
one. Each side runs in a process of its own; building the model does not count.
"""

from __future__ import annotations

from contextlib import ExitStack

import cached
import torch
import tutorial
from side import Pause, Side, Spent, median
from table import Row, show_table
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import datasets
from tutorial import Settings

from tlcompile import Recipe
from tlcompile.compiler import compile_together
from tlcompile.features.prefix import chunks_of
from tlcompile.features.sources import LiveSource
from tlcompile.recipe.load import complete
from tlcompile.run.features import SourceBuilder
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.splits import open_splits
from tlcompile.zoo.open import open_base

POINTS = ("maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
CHUNK = 32  # images a pass, on both sides
WANTED = {"exact": "<= 1.15", "fp32-fused": "-", "fast": "-"}
OFF = {"cache": "off"}


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


def recipe_of(settings: Settings, point: str, features: dict[str, str]) -> Recipe:
    """Write a recipe that freezes up to a point.

    Its model returns layer4's map, too: else the cut behind layer4 would move on to the pooled map,
    which is smaller, and there would be one point less.
    """
    sections = {
        "base": {"model": settings.model, "weights": str(settings.weights), "size": cached.SIDE},
        "freeze": {"upto": [point]},
        "outputs": ["layer4", "fc"],
        "head": "keep",
        "data": {"folder": str(settings.folder)},
        "features": {"batch_size": CHUNK, **features},
        "run": {"device": "cpu", "workers": settings.workers},
    }
    return complete(Recipe.model_validate(sections))


def passes(
    pause: Pause, settings: Settings, points: tuple[str, ...], features: dict[str, str]
) -> None:
    """Compute the rows of all points once, from an empty cache; every other step is a pass.

    Args:
        pause: Ends a step.
        settings: What to do.
        points: At which to freeze.
        features: The section of the recipe; with the cache off, rows are thrown away.
    """
    recipes = [recipe_of(settings, point, features) for point in points]
    recipe, opened = recipes[0], open_base(recipes[0])
    splits = open_splits(recipe, 3, print)
    model = compile_together(recipes, opened, len(splits.classes))
    keep_freed_memory()  # as every run does
    while True:
        with cached.cold_cache():
            built = SourceBuilder(
                recipe, opened.preprocessing, model, torch.device("cpu"), lambda _line: None
            )
            pause()
            sources = built.sources(splits.named())
            if recipe.features.cache == "off":
                for source in sources.values():
                    compute_once(source)
            pause()


def compute_once(source: LiveSource) -> None:
    """Compute the rows of every image once; nothing is kept."""
    for pairs in chunks_of([(sample, 0) for sample in range(len(source.labels))], CHUNK):
        source.prefix(source.load(pairs))


def measure(
    settings: Settings, points: tuple[str, ...], precisions: list[str], rounds: int
) -> list[Row]:
    """Run the epoch, and each precision with and without keeping, in turn; return two rows for each."""
    sides = {"torch": Side(inference_epochs, settings)}
    for precision in precisions:
        for name, cache in (("thrown away", OFF), ("kept", {})):
            features = {"precision": precision, **cache}
            sides[f"{precision}, {name}"] = Side(passes, settings, points, features)
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    with ExitStack() as stack:
        running = {name: stack.enter_context(side) for name, side in sides.items()}
        for _ in range(rounds + 1):
            for name, side in running.items():
                side.step()  # it gets ready
                found[name].append(side.step())
    spent = {name: median(times[1:]) for name, times in found.items()}
    rows = []
    for precision in precisions:
        work, ours = (
            f"{settings.model} at {', '.join(points)}, {precision}",
            spent[f"{precision}, kept"],
        )
        for name, before in (("torch", "torch"), ("ours", f"{precision}, thrown away")):
            title = f"{work}; baseline: {name}"
            rows.append(Row("P8", title, spent[before], ours, WANTED[precision], inverse=True))
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=160)
    parser.add_argument("--points", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument(
        "--workers", type=int, default=0, help="processes (baseline) or threads (ours) that decode"
    )
    parser.add_argument("--rounds", type=int, default=3, help="A B A B: 2")
    parser.add_argument("--precisions", nargs="+", default=list(WANTED), choices=list(WANTED))
    options = parser.parse_args()
    with tutorial.settings_of(options) as settings:
        points = tuple(sorted(options.points, key=POINTS.index))
        rows = measure(settings, points, options.precisions, options.rounds)
    show_table(rows)
    print(f"medians of {options.rounds} rounds in turn; ratios are kept / not kept, the limit is 1")


if __name__ == "__main__":
    main()
