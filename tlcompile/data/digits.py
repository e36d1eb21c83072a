"""The bundled handwritten digits: 1,797 images of 8 x 8, for a first run without a download."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tlcompile.data.samples import Samples

FILE = Path(__file__).with_name("digits.safetensors")
SIDE = 8
STROKES = 16  # each value counts the dark pixels of a 4 x 4 block, 0..16


def load_digits(channels: int = 1) -> Samples:
    """Give the digits as samples of the classes "0" to "9", bright strokes on black.

    Shape:
        read: (channels, 8, 8) uint8

    Units:
        The file holds 0..16; images hold 0..255, exactly round(v * 255 / 16).

    Source:
        UCI Machine Learning Repository, by way of scikit-learn; see DIGITS_LICENSE.md.
    """
    tensors = load_file(FILE)
    images = ((tensors["images"].int() * 255 + STROKES // 2) // STROKES).byte()
    labels = tuple(tensors["labels"].tolist())
    return Samples(
        ids=tuple(f"digits/{index:04d}" for index in range(len(labels))),
        labels=labels,
        classes=tuple("0123456789"),
        fetch=partial(_fetch, images),
        decode=partial(_decode, channels),
    )


def _fetch(images: Tensor, index: int) -> bytes:
    return images[index].numpy().tobytes()


def _decode(channels: int, _index: int, data: bytes) -> Tensor:
    image = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(1, SIDE, SIDE)
    return image.expand(channels, -1, -1).contiguous()
