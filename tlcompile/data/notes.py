"""Say what reading images does to their pixels: what is converted, dropped or not looked at."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

from PIL import ExifTags, Image

from tlcompile.data.images import FORMATS, WITH_ALPHA, is_sixteen_bit
from tlcompile.data.samples import Samples
from tlcompile.data.threads import in_order

_SRGB = (b"sRGB", "sRGB".encode("utf-16-be"))  # in a profile's description


def notes_on(data: bytes) -> tuple[str, ...]:
    """Say what `decode_image` does to an image beyond decoding it; only the header is read."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return tuple(_notes(image))
    except Exception:  # Pillow's parsers raise nearly every type; decoding says what is wrong.
        return ()


def count_notes(samples: Samples, indices: Iterable[int], workers: int) -> Counter[str]:
    """Count the notes on samples; a sample that is no image file has none.

    Args:
        samples: Where to read.
        indices: Which samples.
        workers: Threads.

    Raises:
        UnreadableImagesError: A file cannot be read.
    """
    counts: Counter[str] = Counter()
    for notes in in_order(lambda index: notes_on(samples.fetch(index)), indices, workers):
        counts.update(notes)
    return counts


def _notes(image: Image.Image) -> Iterable[str]:
    if is_sixteen_bit(image):
        yield "16-bit, made 8-bit"
    if image.mode == "CMYK":
        yield "CMYK, made RGB"
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        yield "transparent, laid on white"
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        yield "turned upright"
    if getattr(image, "n_frames", 1) > 1:
        yield "first frame of several"
    profile = image.info.get("icc_profile") or b""
    if profile and not any(word in profile for word in _SRGB):
        yield "colour profile not applied"
