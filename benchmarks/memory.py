"""Memory while extracting and training from the cache, at 1,000 to 100,000 small images (P12).

    python benchmarks/memory.py [--sizes 1000 10000 100000]

Each size is a process of its own, which trains `digits_net`, frozen up to block1, on so many grey
PNG files of 8 x 8 pixels in an empty cache. A thread reads RssAnon of /proc/self/status every few
milliseconds: memory that no file stands behind. Pages of the stored features are a file's, and
belong to the system's cache. The ratio is the peak over that of the smallest size; the bar +-5 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIZES = (1_000, 10_000, 100_000)
SIDE = 8  # pixels
CLASSES = 10
VAL_SHARE = 0.2
EPOCHS = 2
INTERVAL = 0.002  # seconds between two looks
WANTED = (0.95, 1.05)


def make_images(folder: Path, count: int) -> None:
    """Write so many different PNG files, in class folders of train/ and val/."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
    for split in ("train", "val"):
        for label in range(CLASSES):
            (folder / split / str(label)).mkdir(parents=True)
    in_val = round(count * VAL_SHARE)
    for index in range(count):
        split = "val" if index < in_val else "train"
        Image.fromarray(pixels[index]).save(folder / split / str(index % CLASSES) / f"{index}.png")


class Watch(threading.Thread):
    """Looks at this process's anonymous memory until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.over = threading.Event()

    def run(self) -> None:
        """Look, again and again."""
        while not self.over.wait(INTERVAL):
            self.peak = max(self.peak, anonymous())


def anonymous() -> int:
    """Return the bytes of this process's anonymous memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def child(folder: Path) -> dict[str, Any]:
    """Train in this process; return its peaks, before and while."""
    from tlcompile import Recipe
    from tlcompile.recipe.load import complete
    from tlcompile.run.train import train_recipe

    recipe = Recipe.model_validate(
        {
            "name": "memory",
            "base": {"model": "digits_net"},
            "freeze": {"upto": ["block1"]},
            "data": {"folder": str(folder / "images")},
            "fine_tune": {"epochs": EPOCHS},
            "run": {"device": "cpu"},
        }
    )
    before = anonymous()
    peaks: list[int] = []
    watch = Watch()
    watch.start()

    def after_epoch(_row: object, _best: bool) -> None:
        peaks.append(watch.peak)
        watch.peak = 0

    train_recipe(complete(recipe), folder / "run", on_epoch=after_epoch)
    watch.over.set()
    # The first peak is of extraction and the first epoch, the last one of the epochs after it.
    return {"before": before, "first": peaks[0], "later": max(peaks[1:])}


def measure(count: int) -> dict[str, Any]:
    """Train on so many images in a process of its own."""
    import os

    with TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        make_images(folder / "images", count)
        done = subprocess.run(
            [sys.executable, __file__, "--child", name],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "TLCOMPILE_CACHE": str(folder / "cache")},
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"images": count, **found}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    first = rows[0]
    print(
        "| bar | images | before | extraction and 1st epoch | ratio | later epochs | ratio | wanted |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [f"{row[key] / 1e6:,.1f} MB" for key in ("before", "first", "later")]
        ratios = [f"{row[key] / first[key]:.3f}" for key in ("first", "later")]
        wanted = " to ".join(map(str, WANTED))
        texts = [cells[0], cells[1], ratios[0], cells[2], ratios[1], wanted]
        print(f"| P12 | {row['images']:,} | " + " | ".join(texts) + " |")
    print("\npeaks of anonymous memory (RssAnon), one process a line")


def main() -> None:
    """Measure each size, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child)))
    else:
        show([measure(count) for count in options.sizes])


if __name__ == "__main__":
    main()
