"""An epoch of partial fine-tuning after the first: the tutorial's loop against tlcompile (P7).

    python benchmarks/fine_tune_epoch.py                                  # some minutes
    python benchmarks/fine_tune_epoch.py --model resnet50 --images 397    # the bar's own size

Both sides are frozen up to layer3 and train the rest, with the same optimizer, rates and batches.
Each side runs in a process of its own, an epoch each in turn: the tutorial's that decodes its files,
one that has the images in memory, then ours; the first of each is left out. An epoch is a pass over
train with its steps and one over val.

The limit is, for an image of train, (d + P' + s) / (F / R), without d where nothing is decoded: decode,
prefix in train mode (as the tutorial has it) and training step of the rest, measured here; F are that
step's FLOPs, R the machine's rate of large matrix products in fp32; an image of val has P and a third
of the step. Ours trains the rest in fp32 whatever the precision of the features.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import cached
import tutorial
from parts import Parts, measure_parts
from side import Side, Spent, median
from table import Row, show_table
from torchvision import datasets
from tutorial import Settings

WANTED = {
    ("exact", True): ">= 2.5",
    ("exact", False): ">= 2.3",
    ("fast", True): ">= 6",
}
KINDS = {True: "with decoding", False: "without decoding"}


def compare(settings: Settings, precisions: list[str], parts: Parts) -> list[Row]:
    """Run all sides, an epoch each in turn; return two rows for each precision."""
    naive = {decode: Side(tutorial.epochs, replace(settings, decode=decode)) for decode in KINDS}
    ours = {precision: Side(cached.epochs, settings, precision) for precision in precisions}
    sides = {**naive, **ours}
    found: dict[bool | str, list[Spent]] = {name: [] for name in sides}
    with ExitStack() as stack:
        running = {name: stack.enter_context(side) for name, side in sides.items()}
        for decode in naive:
            running[decode].step()  # the model is built
        for _ in range(settings.epochs):
            for name, side in running.items():
                found[name].append(side.step())
    return [
        Row(
            "P7",
            f"epoch, {settings.model} frozen up to {settings.upto}, {kind}, {precision}",
            median(found[decode][1:]),
            median(found[precision][1:]),
            WANTED.get((precision, decode), "-"),
            epoch_limit(settings, parts, decode),
        )
        for precision in precisions
        for decode, kind in KINDS.items()
    ]


def epoch_limit(settings: Settings, parts: Parts, decode: bool) -> float:
    """Return what an epoch without decode and prefix could gain; a step is three forwards."""
    train, val = (
        len(datasets.ImageFolder(settings.folder / split).samples) for split in ("train", "val")
    )
    seen = parts.decode * decode
    naive = train * (seen + parts.train_forward + parts.suffix_step)
    naive += val * (seen + parts.forward + parts.suffix_step / 3)
    return naive / ((train + val / 3) * parts.suffix_flops / parts.fp32_rate)


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=64)
    parser.add_argument("--upto", choices=tutorial.STAGES[2:5], default="layer3")
    parser.add_argument("--epochs", type=int, default=4, help="of each side; the first is left out")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="adam")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes (tutorial) or threads (ours) that decode"
    )
    parser.add_argument(
        "--precisions", nargs="+", default=list(cached.PRECISIONS), choices=cached.PRECISIONS
    )
    options = parser.parse_args()
    with tutorial.settings_of(options) as settings:
        parts = measure_parts(settings)
        rows = compare(settings, options.precisions, parts)
    show_table(rows)
    print(f"{parts}\nmedians of {options.epochs - 1} epochs in turn")


if __name__ == "__main__":
    main()
