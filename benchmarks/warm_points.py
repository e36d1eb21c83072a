"""What a point of a sweep costs beside training its head, with all rows stored (P9).

    python benchmarks/warm_points.py                   # the bundled digits, and resnet18 on pictures

The same process trains some points of a sweep, so that the cache is warm, and then others of the same
boundary: 8 rates, one by one and fused. Of their CPU time, what steps and judging an epoch take is
taken away; the rest by the number of points is the figure. Decodes are counted over all points.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import swept
import tutorial
from cached import cold_cache
from swept import Swept
from table import machine
from tutorial import Settings

from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe

RATES = (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3)
DIGITS = """\
base: {model: digits_net}
freeze: head
data: {dataset: digits, classes: ["5", "6", "7", "8", "9"], per_class: 10, split: {val: 0.5, seed: 0}}
fine_tune: {epochs: 5, batch_size: 10}
"""

Train = Callable[[Sequence[float], Path, str], None]


def measured(train: Train, fuse: str, rounds: int) -> list[float]:
    """Return the CPU ms of a warm point beside training its head, by round."""
    found = []
    with cold_cache() as folder:
        train([rate * 1.5 for rate in RATES[:2]], folder / "cold", fuse)
        for number in range(rounds):
            with swept.training_clock() as training:
                start = time.process_time()
                train(RATES, folder / str(number), fuse)
                spent = time.process_time() - start - training()
            found.append(1e3 * spent / len(RATES))
    return found


def on_digits(folder: Path) -> Train:
    """Return what trains points on the bundled digits."""
    path = folder / "digits.yaml"
    path.write_text(DIGITS)

    def train(rates: Sequence[float], place: Path, fuse: str) -> None:
        points = [(f"fine_tune.optimizer.lr={rate:g}",) for rate in rates]
        recipes: list[Recipe] = [
            load_recipe(str(path), [*point, f"sweep.fuse={fuse}"]) for point in points
        ]
        swept.run_quietly(points, recipes, place)

    return train


def on_pictures(settings: Settings) -> Train:
    """Return what trains points on a folder of JPEG files."""

    def train(rates: Sequence[float], place: Path, fuse: str) -> None:
        points = [Swept("head", rate, settings.batch) for rate in rates]
        swept.train_points(points, settings, "exact", place, fuse)

    return train


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with (
        tutorial.settings_of(options, epochs=5) as settings,
        swept.decode_counter() as decoded,
    ):
        works = {"digits": on_digits(settings.weights.parent), options.model: on_pictures(settings)}
        print("| bar | a warm point beside training its head | CPU ms | wanted |")
        print("| --- | --- | --- | --- |")
        for name, train in works.items():
            for fuse in ("off", "auto"):
                times = measured(train, fuse, options.rounds)
                shown = ", ".join(f"{value:.0f}" for value in times)
                how = "one by one" if fuse == "off" else "fused"
                row = f"{name}, {len(RATES)} points {how}"
                print(f"| P9 | {row} | {statistics.median(times):.0f} ({shown}) | <= 50 |")
        print(f"| P9 | decodes of a JPEG in each of two sweeps | {_share(decoded)} | 1.00 |")
    print(f"\n{machine()}")


def _share(decoded: list[str]) -> str:
    """Return decodes by files; each of the two caches has been empty once."""
    return f"{len(decoded) / 2 / max(len(set(decoded)), 1):.2f}"


if __name__ == "__main__":
    main()
