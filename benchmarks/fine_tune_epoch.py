"""An epoch of partial fine-tuning after the first: the tutorial's loop against tlcompile (P7).

    python benchmarks/fine_tune_epoch.py                                  # some minutes
    python benchmarks/fine_tune_epoch.py --model resnet50 --images 397    # the bar's own size

Both sides are frozen up to layer3 and train the rest, with the same optimizer, rates and batches.
They run in one process, an epoch of ours, one of the tutorial's that decodes its files, one that
has the images in memory, and again; the first of each is left out. An epoch is a pass over train
with its steps and one over val.

The limit is (d + P' + s) / s, without d where nothing is decoded: decode, prefix in train mode, as the
tutorial has it, and training step of the rest, measured here. Ours trains the rest in fp32 whatever
the precision of the features.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cached
import tutorial
from parts import Parts, measure_parts
from pictures import add_arguments, picture_folder
from side_by_side import Row, Spent, median, now, show_table, spent
from tutorial import Settings

from tlcompile.recipe.load import complete
from tlcompile.run.train import train_recipe

WANTED = {
    ("exact", True): ">= 2.5",
    ("exact", False): ">= 2.3",
    ("fast", True): ">= 6",
}
KINDS = {True: "with decoding", False: "without decoding"}


def compare(settings: Settings, precision: str, parts: Parts) -> list[Row]:
    """Run ours and both tutorials, an epoch each in turn; return a row for each tutorial."""
    with TemporaryDirectory() as folder:
        rivals = {
            decode: _epochs(replace(settings, decode=decode), Path(folder) / f"{decode}.pt")
            for decode in KINDS
        }
        ours, theirs = _in_turn(settings, precision, rivals)
    return [
        Row(
            "P7",
            f"epoch, {settings.model} frozen up to {settings.upto}, {kind}, {precision}",
            median(theirs[decode][1:]),
            median(ours[1:]),
            WANTED.get((precision, decode), "-"),
            (parts.decode * decode + parts.train_forward + parts.suffix_step) / parts.suffix_step,
        )
        for decode, kind in KINDS.items()
    ]


def _epochs(settings: Settings, best: Path) -> Iterator[float]:
    return tutorial.epochs_of(settings, tutorial.build(settings), best)


def _in_turn(
    settings: Settings, precision: str, rivals: dict[bool, Iterator[float]]
) -> tuple[list[Spent], dict[bool, list[Spent]]]:
    """Train ours; after each of its epochs, run one of each rival."""
    ours: list[Spent] = []
    theirs: dict[bool, list[Spent]] = {decode: [] for decode in rivals}
    marks = [now()]

    def after_epoch(_row: object, _best: bool) -> None:
        ours.append(now() - marks[-1])
        for decode, rival in rivals.items():
            theirs[decode].append(spent(lambda chosen=rival: next(chosen)))
        marks.append(now())

    with cached.cold_cache() as folder:
        recipe = complete(cached.recipe_of(settings, precision))
        train_recipe(recipe, folder / "run", on_epoch=after_epoch)
    return ours, theirs


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="a ResNet of torchvision")
    parser.add_argument("--upto", choices=tutorial.STAGES[2:5], default="layer3")
    parser.add_argument("--epochs", type=int, default=4, help="of each side; the first is left out")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="adam")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes (tutorial) or threads (ours) that decode"
    )
    add_arguments(parser, images=64)
    options = parser.parse_args()
    with (
        TemporaryDirectory() as made,
        picture_folder(options.folder, options.images) as folder,
    ):
        weights = Path(made) / "weights.safetensors"
        tutorial.random_weights(options.model, weights)
        settings = Settings(
            folder, weights, options.model, options.upto, options.epochs, options.batch,
            options.optimizer, workers=options.workers,
        )  # fmt: skip
        precisions = cached.offered(lambda p: cached.run(replace(settings, epochs=1), p))
        parts = measure_parts(settings)
        rows = [row for p in precisions for row in compare(settings, p, parts)]
    show_table(rows)
    print(f"{parts}\nmedians of {options.epochs - 1} epochs in turn")


if __name__ == "__main__":
    main()
