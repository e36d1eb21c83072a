"""Nautilus' workload: 4 freeze points x 2 batch sizes x 3 rates, on data that grow in cycles (P3).

    python benchmarks/growing.py                       # 10 cycles of 8 images, resnet18: some minutes

The freeze points are the last five blocks but the last, as there: conv4_block5 to conv5_block2. In each
cycle so many images come, and all 24 points train anew on all that are there. Ours runs every cycle
whole, in one process and one cache, which is empty before the first. Of the tutorial's 24 runs a cycle
one epoch of each freeze point is run, on the images of the last cycle; a run of a cycle costs that per
image, so many images and so many epochs: no other cost of it is counted.

The limit is the ratio of d + P + T for all of naive to d + P once an image and T, in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import swept
import torchvision
import tutorial
from cached import cold_cache
from head_run import tutorial_total
from parts import measure_parts
from side import Pause, Side, Spent
from swept import Swept
from table import Row, show_table
from tutorial import Settings

RATES = (5e-4, 1e-3, 2e-3)
BATCHES = (8, 16)
RUNS = len(RATES) * len(BATCHES)  # of each freeze point


@contextmanager
def grown(folder: Path, count: int) -> Iterator[Path]:
    """Give a folder with the first so many images of another, as links."""
    with TemporaryDirectory() as made:
        for path in sorted(folder.rglob("*.jpg"), key=lambda path: path.stem)[:count]:
            link = Path(made) / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        yield Path(made)


def cycles(
    pause: Pause, points: list[Swept], settings: Settings, precision: str, counts: list[int]
) -> None:
    """Train all points in every cycle: a step each."""
    with cold_cache() as place:
        for count in counts:
            with grown(settings.folder, count) as folder:
                own = replace(settings, folder=folder)
                swept.train_points(points, own, precision, place / str(count))
            pause()


def compare(settings: Settings, precisions: list[str], counts: list[int]) -> list[Row]:
    """Run our cycles, and an epoch of each freeze point as the tutorial trains it."""
    blocks = freeze_points(settings.model)
    points = swept.points_of(blocks, RATES, BATCHES, [0.0])
    an_epoch = Spent(0, 0)
    for upto in blocks:
        an_epoch += tutorial_total(replace(settings, upto=upto, epochs=1), 1)
    naive = an_epoch * (RUNS * settings.epochs * sum(counts) / counts[-1])
    rows = []
    for precision in precisions:
        ours = Spent(0, 0)
        with Side(cycles, points, settings, precision, counts) as side:
            for _ in counts:
                ours += side.step()
        wanted = ">= 2.8" if precision == "exact" else ">= 8 with AMX"
        limit = limit_of(settings, counts) if precision == "exact" else None
        work = (
            f"24 points, {len(counts)} cycles to {counts[-1]} images, {settings.model}, {precision}"
        )
        rows.append(Row("P3", work, naive, ours, wanted, limit))
    return rows


def freeze_points(model: str) -> tuple[str, ...]:
    """Return the four blocks before the last one."""
    names = [name for name, _unit in tutorial.units(torchvision.models.get_model(model))]
    return tuple(name for name in names if name.startswith("layer"))[-5:-1]


def limit_of(settings: Settings, counts: list[int]) -> float:
    """Return what computing each frozen prefix once an image could gain."""
    often = RUNS * settings.epochs * sum(counts)
    naive = training = deepest = decode = 0.0
    for upto in freeze_points(settings.model):
        parts = measure_parts(replace(settings, upto=upto))
        naive += often * (parts.decode + parts.forward + parts.suffix_step)
        training += often * parts.suffix_step
        deepest, decode = max(deepest, parts.forward), parts.decode
    return naive / (training + counts[-1] * (decode + deepest))


def main() -> None:
    """Measure and print the table."""
    parser = tutorial.parser_of(__doc__, images=80)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--precisions", nargs="+", default=["exact"], choices=["exact", "fast"])
    options = parser.parse_args()
    counts = [options.images * (n + 1) // options.cycles for n in range(options.cycles)]
    with tutorial.settings_of(options, batch=16) as settings:
        show_table(compare(settings, options.precisions, counts))
    print(
        "one round; the tutorial's side is one epoch of each freeze point, multiplied as said above"
    )


if __name__ == "__main__":
    main()
