"""One head run from JPEG files: PyTorch's tutorial loop against tlcompile with an empty cache (P1).

    python benchmarks/head_run.py                                     # some minutes
    python benchmarks/head_run.py --model resnet50 --images 397       # the bar's own size
    python benchmarks/head_run.py --model resnet50 --folder FOLDER    # real pictures

Both sides freeze everything but the head, with the same optimizer, rates, batches, epochs and the
evaluation's transformation; `augmented` rows crop and flip at random, ours by as many cached views
as epochs. Ours counts from reading the recipe to the written bundle. The tutorial's side runs only
--naive-epochs of its epochs, of which each costs the same; the rest is their median, so often.

The limit of exact is E (d + P' + h) / (d + P + E h): decode, prefix and head step, measured here, E
epochs; P' is the prefix in train mode, as the tutorial has it. That of fast has the prefix at the
machine's bf16 matrix rate, and the decoder as it is.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import cached
import tutorial
from parts import Parts, measure_parts
from pictures import add_arguments, picture_folder
from side_by_side import Row, Spent, in_turn, median, now, show_table, spent
from tutorial import Settings

WANTED = {"exact": ">= 28", "fp32-fused": "-", "fast": ">= 120 with AMX"}


def tutorial_total(settings: Settings, naive_epochs: int) -> Spent:
    """Run the tutorial's loop for a few epochs; return what all would take."""
    marks = [now()]
    with TemporaryDirectory() as folder:
        model = tutorial.build(settings)
        for _accuracy in tutorial.epochs_of(settings, model, Path(folder) / "best.pt"):
            marks.append(now())
            if len(marks) > naive_epochs:
                break
    epochs = [after - before for before, after in pairwise(marks)]
    return (marks[-1] - marks[0]) + median(epochs) * (settings.epochs - len(epochs))


def compare(
    settings: Settings, precisions: list[str], naive_epochs: int, rounds: int, parts: Parts
) -> list[Row]:
    """Run the tutorial and each precision in turn; return a row for each precision."""
    sides = {"naive": lambda: tutorial_total(settings, naive_epochs)}
    for precision in precisions:
        sides[precision] = lambda chosen=precision: spent(lambda: cached.run(settings, chosen))
    found = in_turn(sides, rounds)
    kind = "augmented, " if settings.augment else ""
    work = f"head run, {kind}{settings.model}, {settings.epochs} epochs, {{}}"
    limits = {} if settings.augment else head_limits(parts, settings.epochs)
    return [
        Row(
            "P1",
            work.format(precision),
            found["naive"],
            found[precision],
            "-" if settings.augment else WANTED[precision],
            limits.get(precision),
        )
        for precision in precisions
    ]


def head_limits(parts: Parts, epochs: int) -> dict[str, float]:
    """Return the most that computing features once could gain, by precision."""
    naive = epochs * (parts.decode + parts.train_forward + parts.suffix_step)
    fast = parts.decode + parts.flops / parts.bf16_rate + epochs * parts.suffix_step
    exact = parts.decode + parts.forward + epochs * parts.suffix_step
    return {"exact": naive / exact, "fast": naive / fast}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="a ResNet of torchvision")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes (tutorial) or threads (ours) that decode"
    )
    parser.add_argument("--naive-epochs", type=int, default=2, help="epochs of the tutorial run")
    parser.add_argument("--rounds", type=int, default=2, help="A B A B: 2")
    parser.add_argument("--rows", nargs="+", default=["plain", "augmented"])
    add_arguments(parser, images=64)
    options = parser.parse_args()
    with (
        TemporaryDirectory() as made,
        picture_folder(options.folder, options.images) as folder,
    ):
        weights = Path(made) / "weights.safetensors"
        tutorial.random_weights(options.model, weights)
        settings = Settings(
            folder, weights, options.model, epochs=options.epochs, batch=options.batch,
            optimizer=options.optimizer, workers=options.workers,
        )  # fmt: skip
        one_epoch = Settings(folder, weights, options.model, epochs=1, batch=options.batch)
        precisions = cached.offered(lambda p: cached.run(one_epoch, p))  # unmeasured, too
        parts = measure_parts(settings)
        rows = []
        for kind in options.rows:
            asked = settings if kind == "plain" else replace(settings, augment=True)
            rows += compare(asked, precisions, options.naive_epochs, options.rounds, parts)
    show_table(rows)
    print(f"{parts}")
    print(
        f"medians of {options.rounds} rounds in turn; {options.naive_epochs} epochs of each"
        f" tutorial run were run, the rest of its {options.epochs} is their median, so often"
    )


if __name__ == "__main__":
    main()
