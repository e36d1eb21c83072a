"""Photo-like JPEG files in class folders, the same every time: train/ and val/, two classes in each.

    python benchmarks/pictures.py FOLDER [--images 64]

Noise at every scale from 1 to 256 pixels, the coarse the stronger, with edges here and there, at
quality 90: files of about 80 kB, which cost as much to decode as photographs of their size do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

CLASSES = ("ants", "bees")
WIDTH, HEIGHT = 500, 400  # pixels; a third of the pictures stand upright
SCALES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # pixels
CONTRAST = 8.0  # of the finest noise; sets the size of the files
SLOPE = 0.3  # how much stronger coarse noise is
QUALITY = 90
TRAIN_SHARE = 0.6  # as in the tutorial's ants and bees: 244 of 397


def picture(index: int, seed: int = 0) -> Image.Image:
    """Draw one picture; its pixels depend on (seed, index) alone."""
    random = np.random.default_rng([seed, index])
    size = (WIDTH, HEIGHT) if index % 3 else (HEIGHT, WIDTH)
    pixels = np.full((size[1], size[0], 3), 118.0)
    for scale in SCALES:
        # Colours change less than brightness does, in photographs.
        pixels += CONTRAST * scale**SLOPE * _smooth(random, size, scale, 1)
        pixels += CONTRAST * scale**SLOPE / 3 * _smooth(random, size, scale, 3)
    edge = _smooth(random, size, 128, 1) > 0.7
    return Image.fromarray(np.clip(pixels + 40 * edge, 0, 255).astype(np.uint8))


def _smooth(
    random: np.random.Generator, size: tuple[int, int], scale: int, channels: int
) -> np.ndarray:
    """Return noise of one scale, (height, width, channels), with deviation 1 before smoothing."""
    width, height = (side // scale + 2 for side in size)
    planes = []
    for _ in range(channels):
        noise = Image.fromarray(random.standard_normal((height, width), dtype=np.float32))
        planes.append(np.asarray(noise.resize(size, Image.Resampling.BICUBIC)))
    return np.stack(planes, axis=-1)


def make_pictures(folder: Path, images: int, seed: int = 0) -> None:
    """Write so many JPEG files: train/<class>/0000.jpg and val/<class>/0001.jpg, classes in turn."""
    in_train = round(images * TRAIN_SHARE)
    for index in range(images):
        split = "train" if index < in_train else "val"
        inside = folder / split / CLASSES[index % len(CLASSES)]
        inside.mkdir(parents=True, exist_ok=True)
        picture(index, seed).save(inside / f"{index:06}.jpg", quality=QUALITY)


@contextmanager
def picture_folder(folder: Path | None, images: int) -> Iterator[Path]:
    """Give a folder of real pictures as it is, or one of synthetic ones for the time being."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory(prefix="pictures-") as made:
        make_pictures(Path(made), images)
        yield Path(made)


def add_arguments(parser: argparse.ArgumentParser, images: int) -> None:
    """Declare where the pictures come from."""
    parser.add_argument(
        "--folder", type=Path, help="real pictures: train/ and val/ with class folders in each"
    )
    parser.add_argument(
        "--images", type=int, default=images, help=f"synthetic pictures; default: {images}"
    )


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    make_pictures(options.folder, options.images)
    sizes = [path.stat().st_size for path in options.folder.rglob("*.jpg")]
    print(f"{len(sizes)} pictures of {np.mean(sizes) / 1e3:.0f} kB on average")


if __name__ == "__main__":
    main()
