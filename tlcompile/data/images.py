"""Read images as 8-bit tensors, by Pillow alone, and refuse what would be read wrongly.

Pillow by measurement (benchmarks/decoders.py: 96 photographs of 111 kB, one thread, images a CPU
second, decoded and prepared): Pillow 403, torchvision.io 499, OpenCV 513, simplejpeg 538; all four
give the same pixels. An image is decoded once for all runs, which a third more speed does not
change: torchvision.io is deprecated since 0.29, simplejpeg reads JPEG alone, and two decoders side
by side are two sets of bits. torchvision's own transforms on Pillow images do 257.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from tlcompile.durable.system import open_to_read
from tlcompile.errors.data import (
    TooManyPixelsError,
    UnreadableImagesError,
    UnsupportedImageError,
)

# Pillow knows about 50 formats; each further one is another parser for a stranger's bytes.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 89_478_485  # 256 MiB of RGB; Pillow warns there, we stop
MAX_BYTES = 1 << 29  # of a file; twice the RGB of MAX_PIXELS
WHITE = (255, 255, 255, 255)

_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
WITH_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
_PIL_MODE = {1: "L", 3: "RGB"}


def read_image(path: str | Path, channels: int = 3) -> Tensor:
    """Read and decode one file.

    Raises:
        UnreadableImagesError: As `read_bytes` and `decode_image`.
        UnsupportedImageError: As `decode_image`.
        TooManyPixelsError: As `decode_image`.

    Shape:
        out: (channels, H, W) uint8
    """
    return decode_image(read_bytes(path), str(path), channels)


def read_bytes(path: str | Path) -> bytes:
    """Read a file whole, so that what is hashed is what is decoded.

    Raises:
        UnreadableImagesError: It is missing, no plain file, too large, or may not be read.
    """
    try:
        with open(path, "rb", buffering=0, opener=open_to_read) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(path, "it is no plain file")
            if status.st_size > MAX_BYTES:
                raise _unreadable(path, f"{status.st_size:,} bytes, more than {MAX_BYTES:,}")
            return file.read()
    except OSError as cause:
        raise _unreadable(path, _why_not_read(path, cause)) from cause


def _why_not_read(path: str | Path, cause: OSError) -> str:
    match cause:
        case FileNotFoundError():
            broken = os.path.islink(path)
            return "it links to a file that is not there" if broken else "there is no such file"
        case IsADirectoryError():
            return "it is a folder"
        case PermissionError():
            return "it may not be read"
        case _:
            return cause.strerror or type(cause).__name__


def _unreadable(path: str | Path, reason: str) -> UnreadableImagesError:
    return UnreadableImagesError(images=((str(path), reason),))


def decode_image(data: bytes, name: str, channels: int = 3) -> Tensor:
    """Decode one image, upright, as RGB or grey.

    EXIF orientation is applied. Transparent pixels are laid on white, as a page shows them.
    CMYK, palettes and the like are converted by Pillow, without colour profiles (`notes.py` says
    where there was one). Of an animation the first frame is read. 16-bit grey is scaled, not
    clipped; of 16-bit colours the upper 8 bits are read.

    Raises:
        UnreadableImagesError: It is empty, cut short, damaged or of another format.
        UnsupportedImageError: 32-bit and floating-point pixels, whose range is not known.
        TooManyPixelsError: More than `MAX_PIXELS`, by the header, before anything is decoded.

    Shape:
        out: (channels, H, W) uint8
    """
    if not data:
        raise _unreadable(name, "it is empty")
    try:
        # The first frame only, and never ImageFile.LOAD_TRUNCATED_IMAGES: it fills with grey.
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _pixels(image, name, channels)
    except (UnsupportedImageError, TooManyPixelsError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise TooManyPixelsError(path=name, size="too many", limit=MAX_PIXELS) from cause
    except Exception as cause:  # Pillow's parsers raise nearly every type on damaged bytes.
        raise _unreadable(name, _reason(cause)) from cause


def check_images(paths: Iterable[str | Path], workers: int) -> None:
    """Decode every file, for `verify()` alone misses cut files, and report all bad ones at once.

    Raises:
        UnreadableImagesError: At least one file is bad; holds them all, in the order given.
    """
    paths = list(paths)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        reasons = list(pool.map(_trouble, paths))
    bad = tuple((str(p), r) for p, r in zip(paths, reasons, strict=True) if r is not None)
    if bad:
        raise UnreadableImagesError(images=bad)


def _trouble(path: str | Path) -> str | None:
    try:
        read_image(path)
    except (UnreadableImagesError, UnsupportedImageError, TooManyPixelsError) as error:
        return error.reason()
    return None


def _pixels(image: Image.Image, name: str, channels: int) -> Tensor:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise TooManyPixelsError(path=name, size=size, limit=MAX_PIXELS)
    if image.mode == "RGB" and "transparency" in image.info and is_sixteen_bit(image):
        # Pillow compares the colour's 16 bits with the 8 that are left of the pixels.
        raise UnsupportedImageError(path=name, mode="16-bit RGB with a transparent colour")
    ImageOps.exif_transpose(image, in_place=True)  # else it copies what is upright, too
    if image.mode.startswith("I;16"):
        return _sixteen_bit(image, channels)
    if image.mode not in _EIGHT_BIT + WITH_ALPHA:
        raise UnsupportedImageError(path=name, mode=image.mode)
    if image.mode == "P":
        _refuse_missing_colours(image)
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        image = _on_white(image)
    wanted = _PIL_MODE[channels]
    array = np.array(image if image.mode == wanted else image.convert(wanted))
    return torch.from_numpy(array.reshape(image.height, image.width, channels)).permute(2, 0, 1)


def _sixteen_bit(image: Image.Image, channels: int) -> Tensor:
    """Scale 0..65535 to 0..255, rounded; Pillow's own conversion would clip at 255."""
    array = np.asarray(image).astype(np.uint32)
    if "transparency" in image.info:
        array[array == image.info["transparency"]] = 65535
    grey = torch.from_numpy(((array + 128) // 257).astype(np.uint8))
    return grey.expand(channels, -1, -1).contiguous()


def is_sixteen_bit(image: Image.Image) -> bool:
    """Tell whether the file has 16 bits a channel; Pillow keeps the upper 8 of a colour image."""
    tile = getattr(image, "tile", [])
    return image.mode.startswith("I;16") or any(";16" in str(part.args) for part in tile)


def _refuse_missing_colours(image: Image.Image) -> None:
    """Pillow shows as black what the palette does not have."""
    colours = len(image.getpalette("RGB") or ()) // 3
    highest = int(np.asarray(image).max())
    if highest >= colours:
        raise ValueError(f"a pixel has colour {highest} of a palette of {colours}")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")


def _reason(cause: Exception) -> str:
    if isinstance(cause, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, or its header is damaged"
    # Pillow puts the path and addresses into some messages; the first line is the reason.
    return (str(cause) or type(cause).__name__).splitlines()[0]
