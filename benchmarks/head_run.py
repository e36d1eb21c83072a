"""One head run from JPEG files: PyTorch's tutorial loop against tlcompile with an empty cache (P1).

    python benchmarks/head_run.py                                     # some minutes
    python benchmarks/head_run.py --model resnet50 --images 397       # the bar's own size
    python benchmarks/head_run.py --model resnet50 --folder FOLDER    # real pictures

Both sides freeze everything but the head, with the same optimizer, rates, batches, epochs and the
evaluation's transformation; `augmented` rows crop and flip at random, ours by as many cached views
as epochs. Ours counts from reading the recipe to the written bundle. The tutorial's side runs only
--naive-epochs of its epochs, of which each costs the same; the rest is their median, so often.

Each side runs in a process of its own, which has imported torch before it is measured.

The limit is E (d + P' + h) / (d + F / R + E h): decode, prefix in train mode (as the tutorial has it)
and head step, measured here; F are the prefix's FLOPs, R the machine's rate of large matrix products
in fp32, or for fast in bf16.
"""

from __future__ import annotations

from dataclasses import replace

import cached
import tutorial
from parts import Parts, measure_parts
from side import Side, Spent, median, once
from table import Row, show_table
from tutorial import Settings

WANTED = {"exact": ">= 28", "fp32-fused": "-", "fast": ">= 120 with AMX"}


def tutorial_total(settings: Settings, naive_epochs: int) -> Spent:
    """Run the tutorial's loop for a few epochs; return what all would take."""
    with Side(tutorial.epochs, settings) as side:
        building = side.step()
        found = [side.step() for _ in range(min(naive_epochs, settings.epochs))]
    return building + median(found) * settings.epochs


def compare(
    settings: Settings, precisions: list[str], naive_epochs: int, rounds: int, parts: Parts
) -> list[Row]:
    """Run the tutorial and each precision in turn; return a row for each precision."""
    naive: list[Spent] = []
    ours: dict[str, list[Spent]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        for precision in precisions:
            naive.append(tutorial_total(settings, naive_epochs))
            ours[precision].append(once(cached.run, settings, precision))
    kind = "augmented, " if settings.augment else ""
    limits = {} if settings.augment else head_limits(parts, settings.epochs)
    return [
        Row(
            "P1",
            f"head run, {kind}{settings.model}, {settings.epochs} epochs, {precision}",
            median(naive),
            median(times),
            "-" if settings.augment else WANTED[precision],
            limits.get(precision),
        )
        for precision, times in ours.items()
    ]


def head_limits(parts: Parts, epochs: int) -> dict[str, float]:
    """Return the most that computing features once could gain, by precision."""
    naive = epochs * (parts.decode + parts.train_forward + parts.suffix_step)
    rates = {"exact": parts.fp32_rate, "fp32-fused": parts.fp32_rate, "fast": parts.bf16_rate}
    once = {name: parts.decode + parts.flops / rate for name, rate in rates.items()}
    return {name: naive / (one + epochs * parts.suffix_step) for name, one in once.items()}


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=64)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes (tutorial) or threads (ours) that decode"
    )
    parser.add_argument("--naive-epochs", type=int, default=2, help="epochs of the tutorial run")
    parser.add_argument("--rounds", type=int, default=2, help="A B A B: 2")
    parser.add_argument("--rows", nargs="+", default=["plain", "augmented"])
    parser.add_argument("--precisions", nargs="+", default=list(WANTED), choices=list(WANTED))
    options = parser.parse_args()
    with tutorial.settings_of(options) as settings:
        parts = measure_parts(settings)
        rows = []
        for kind in options.rows:
            asked = settings if kind == "plain" else replace(settings, augment=True)
            rows += compare(asked, options.precisions, options.naive_epochs, options.rounds, parts)
    show_table(rows)
    print(f"{parts}")
    print(
        f"medians of {options.rounds} rounds in turn; {options.naive_epochs} epochs of each"
        f" tutorial run were run, the rest of its {options.epochs} is their median, so often"
    )


if __name__ == "__main__":
    main()
