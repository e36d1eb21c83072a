"""Decoders side by side: CPU time of decoding, of decoding and preparing, and whether pixels are equal.

    python benchmarks/decoders.py [--folder IMAGES] [--images 128] [--rounds 7]

Pillow is the decoder of tlcompile; torchvision.io (deprecated since 0.29), simplejpeg and OpenCV
are measured where they are installed. Each round runs every decoder once, in turn; the table has
medians of CPU time, on one thread. The last rows are what a run does.
"""

from __future__ import annotations

import argparse
import importlib
import io
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import add_arguments, picture_folder
from PIL import Image
from torch import Tensor
from torchvision.models import ResNet18_Weights

from tlcompile.data.digests import digests_of
from tlcompile.data.folder import file_samples
from tlcompile.data.images import decode_image
from tlcompile.data.loading import load_images
from tlcompile.zoo.preprocessing import from_weights

WEIGHTS = ResNet18_Weights.DEFAULT
PREPARE = from_weights(WEIGHTS)
CHUNK = 32  # images
PACKAGES = {"simplejpeg": "simplejpeg", "OpenCV": "cv2", "torchvision.io": "torchvision.io"}

Decoder = Callable[[bytes], Tensor]


def decoders() -> dict[str, Decoder]:
    """Return what is installed, as functions from bytes to uint8 (3, H, W)."""
    made = {"simplejpeg": _simplejpeg, "OpenCV": _opencv, "torchvision.io": _torchvision}
    found: dict[str, Decoder] = {
        "Pillow, plain": _pillow,
        "Pillow, as tlcompile calls it": lambda data: decode_image(data, "image"),
    }
    for name, package in PACKAGES.items():
        try:
            found[name] = made[name](importlib.import_module(package))
        except ImportError:
            print(f"{name} is not installed")
    return found


def _pillow(data: bytes) -> Tensor:
    return _from_array(np.array(Image.open(io.BytesIO(data)).convert("RGB")))


def _from_array(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def _simplejpeg(package: Any) -> Decoder:
    return lambda data: _from_array(package.decode_jpeg(data))


def _opencv(package: Any) -> Decoder:
    package.setNumThreads(1)
    flags = package.IMREAD_COLOR_RGB
    return lambda data: _from_array(package.imdecode(np.frombuffer(data, np.uint8), flags))


def _torchvision(package: Any) -> Decoder:
    mode = package.ImageReadMode.RGB
    return lambda data: package.decode_jpeg(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode
    )


def tutorials_transform(data: bytes) -> Tensor:
    """Decode and transform as the tutorial does: all by Pillow, image by image."""
    prepared: Tensor = WEIGHTS.transforms()(Image.open(io.BytesIO(data)).convert("RGB"))
    return prepared


def load_all(paths: list[str], workers: int) -> None:
    """Load as a run does, chunk by chunk."""
    samples = file_samples(tuple(paths), (0,) * len(paths), ("a",), 3)
    for start in range(0, len(paths), CHUNK):
        chunk = range(start, min(start + CHUNK, len(paths)))
        load_images(samples, chunk, PREPARE, workers=workers)


def each(work: Callable[[bytes], object], files: list[bytes]) -> None:
    """Do it to every file; nothing is kept, as in a run."""
    for data in files:
        work(data)


def works(paths: list[str], files: list[bytes]) -> dict[str, Callable[[], object]]:
    """Return all that is measured, by name; `decode:` and `prepare:` are columns."""
    found: dict[str, Callable[[], object]] = {}
    for name, decode in decoders().items():
        found[f"decode:{name}"] = partial(each, decode, files)
        found[f"prepare:{name}"] = partial(each, _then_prepared(decode), files)
    found["prepare:Pillow and weights.transforms()"] = partial(each, tutorials_transform, files)
    for workers in (0, 2):
        found[f"prepare:load_images, workers={workers}"] = partial(load_all, paths, workers)
    samples = file_samples(tuple(paths), (0,) * len(paths), ("a",), 3)
    found["digests"] = partial(digests_of, samples, workers=0)
    return found


def in_turn(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run everything once a round, one after the other; return medians of CPU seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def _then_prepared(decode: Decoder) -> Decoder:
    return lambda data: PREPARE.apply(decode(data))


def equal_pixels(files: list[bytes]) -> dict[str, int]:
    """Count the images of which each decoder gives Pillow's pixels."""
    wanted = [_pillow(data) for data in files]
    return {
        name: sum(torch.equal(decode(d), w) for d, w in zip(files, wanted, strict=True))
        for name, decode in decoders().items()
    }


def table(times: dict[str, float], equal: dict[str, int], count: int) -> str:
    """Return one line for each decoder and each whole path."""
    names = dict.fromkeys(name.partition(":")[2] for name in times if ":" in name)
    lines = [
        "| on one thread, images a CPU second | decode | decode and prepare | equal pixels |",
        "|---|---|---|---|",
    ]
    for name in names:
        rates = [
            f"{count / times[key]:.0f}" if (key := f"{column}:{name}") in times else ""
            for column in ("decode", "prepare")
        ]
        same = f"{equal[name]} of {count}" if name in equal else ""
        lines.append(f"| {name} | {' | '.join(rates)} | {same} |")
    return "\n".join(lines)


def readable(folder: Path, limit: int) -> list[str]:
    """Return the first plain RGB JPEGs of a folder: what every decoder reads."""
    found = []
    for path in sorted(folder.rglob("*.jp*g")):
        with Image.open(path) as image:
            if image.mode == "RGB" and image.getexif().get(274, 1) == 1:
                found.append(str(path))
    return found[:limit]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_arguments(parser, images=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # torchvision.io's deprecation, once for each image
    torch.set_num_threads(1)
    with picture_folder(options.folder, options.images) as folder:
        paths = readable(folder, options.images)
        files = [Path(path).read_bytes() for path in paths]
        times = in_turn(works(paths, files), options.rounds)
        equal = equal_pixels(files)
    size = sum(map(len, files))
    print(f"{len(files)} JPEG files of {size / len(files) / 1e3:.0f} kB on average")
    print(table(times, equal, len(files)))
    seconds = times["digests"]
    print(f"digests: {len(files) / seconds:.0f} images, {size / seconds / 1e9:.2f} GB a CPU second")


if __name__ == "__main__":
    main()
