"""A grid of 24 heads x 20 epochs with an empty cache against one run as the tutorial trains it (P5).

    python benchmarks/grid.py                  # 397 images of resnet18, some minutes

8 rates x 3 decays at one boundary, SGD with momentum, from JPEG files to the last of 24 bundles,
against PyTorch's tutorial loop over one head. The tutorial's run has --naive-epochs of its epochs run;
each costs the same, and their median stands for all.

The limit is (d + F / R) / E (d + P): computing the features alone, at the rate of matrix products.
"""

from __future__ import annotations

import swept
import tutorial
from head_run import tutorial_total
from parts import measure_parts
from side import Spent, median, once
from table import Row, show_table
from tutorial import Settings

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
DECAYS = (0.0, 1e-4, 1e-2)
WANTED = {"exact": "-", "fp32-fused": "-", "fast": "<= 0.02 with AMX"}


def compare(settings: Settings, precisions: list[str], naive_epochs: int, rounds: int) -> list[Row]:
    """Run the tutorial and our grid in turn; return a row for each precision."""
    points = swept.points_of(["head"], RATES, [settings.batch], DECAYS)
    naive: list[Spent] = []
    ours: dict[str, list[Spent]] = {precision: [] for precision in precisions}
    for _ in range(rounds):
        naive.append(tutorial_total(settings, naive_epochs))
        for precision, times in ours.items():
            times.append(once(swept.sweep, points, settings, precision))
    parts, baseline = measure_parts(settings), median(naive)
    one = settings.epochs * (parts.decode + parts.train_forward + parts.suffix_step)
    rates = {"exact": parts.fp32_rate, "fp32-fused": parts.fp32_rate, "fast": parts.bf16_rate}
    work = f"{len(points)} heads x {settings.epochs} epochs, {settings.model}"
    return [
        Row("P5", f"{work}, {precision}", baseline, median(times), WANTED[precision],
            (parts.decode + parts.flops / rates[precision]) / one, inverse=True)
        for precision, times in ours.items()
    ]  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=397)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--naive-epochs", type=int, default=1, help="epochs of the tutorial run")
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
