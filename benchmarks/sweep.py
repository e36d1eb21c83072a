"""A sweep over freeze points against the dearest of its points as the tutorial trains it (P2).

    python benchmarks/sweep.py                                  # resnet18, some minutes
    python benchmarks/sweep.py --model resnet50 --images 64     # the bar's own model

Freeze points layer3, layer4 and avgpool, 5 epochs, from JPEG files and an empty cache to the last
bundle, against PyTorch's tutorial loop with the same optimizer, rate, batches and transformation.
The tutorial's runs have --naive-epochs of their epochs run; each epoch costs the same, and their
median stands for all. A loop that freezes layer4 and one that freezes avgpool are the same loop.

Each side runs in a process of its own, which has imported torch before it is measured.

The limit is (d + F / R + E (training of what is not frozen)) / E (d + P + T) of the dearest: decode,
frozen forward and training step measured, F and R the prefix's FLOPs and the rate of matrix products.
"""

from __future__ import annotations

from dataclasses import replace

import swept
import tutorial
from head_run import tutorial_total
from parts import Parts, measure_parts
from side import Spent, median, once
from table import Row, show_table
from tutorial import Settings

STAGES = ("layer3", "layer4", "avgpool")
WANTED = {"exact": "<= 0.60", "fp32-fused": "-", "fast": "<= 0.20 with AMX"}


def compare(settings: Settings, precisions: list[str], naive_epochs: int, rounds: int) -> list[Row]:
    """Run the tutorial at both depths and our sweep in turn; return two rows for each precision."""
    points = swept.points_of(STAGES, [settings.rate], [settings.batch], [0.0])
    naive: dict[str, list[Spent]] = {"layer3": [], "layer4": []}
    ours: dict[str, list[Spent]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        for upto, times in naive.items():
            times.append(tutorial_total(replace(settings, upto=upto), naive_epochs))
        for precision, times in ours.items():
            times.append(once(swept.sweep, points, settings, precision))
    each = {upto: median(times) for upto, times in naive.items()}
    everything = each["layer3"] + each["layer4"] * 2
    limits = sweep_limits(settings)
    work = f"{', '.join(STAGES)}; {settings.model}, {settings.epochs} epochs"
    rows = []
    for precision, times in ours.items():
        total, limit = median(times), limits[precision]
        rows += [
            Row("P2", f"{work}, {precision}: of the dearest run", each["layer3"], total,
                WANTED[precision], limit, inverse=True),
            Row("P2", f"the same: all three runs, {precision}", everything, total, "-"),
        ]  # fmt: skip
    return rows


def sweep_limits(settings: Settings) -> dict[str, float]:
    """Return the least share of the dearest run, by precision; validation images cost no training."""
    early = measure_parts(replace(settings, upto="layer3"))
    late = measure_parts(replace(settings, upto="layer4"))
    share = 0.6  # of the images are trained on
    epochs = settings.epochs
    rest = epochs * (share * early.suffix_step + (1 - share) * early.suffix_step / 3)
    dearest = epochs * (early.decode + early.train_forward) + rest

    def least(parts: Parts, rate: float) -> float:
        return (parts.decode + parts.flops / rate + rest + 2 * epochs * parts.suffix_step) / dearest

    rates = {"exact": late.fp32_rate, "fp32-fused": late.fp32_rate, "fast": late.bf16_rate}
    return {name: least(late, rate) for name, rate in rates.items()}


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--naive-epochs", type=int, default=1, help="epochs of each tutorial run")
    parser.add_argument("--rounds", type=int, default=2, help="A B A B: 2")
    parser.add_argument("--precisions", nargs="+", default=["exact", "fast"], choices=list(WANTED))
    options = parser.parse_args()
    with tutorial.settings_of(options) as settings:
        show_table(compare(settings, options.precisions, options.naive_epochs, options.rounds))
    print(
        f"medians of {options.rounds} rounds in turn; {options.naive_epochs} epochs of each tutorial"
        f" run were run, the rest of its {options.epochs} is their median, so often"
    )


if __name__ == "__main__":
    main()
