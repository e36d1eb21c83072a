"""Prepared images from the store: the same as decoding, each decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from stored_rows import about, fill, holds, keys_of, read, rows_of
from torch import Tensor

from tlcompile.features.pixels import StoredPixels
from tlcompile.store.store import Store

OF = about("pixels", (3, 4, 4), "uint8")
COUNT = 10


class Images(StoredPixels):
    """Images that are functions of their numbers; notes what it decodes."""

    def __init__(self, cache: Path) -> None:
        self.decoded: list[int] = []
        super().__init__(Store(cache).open(OF), keys_of(range(COUNT)), self._decode, normalise)

    def _decode(self, pairs: Sequence[tuple[int, int]]) -> Tensor:
        self.decoded += [sample for sample, _ in pairs]
        return rows_of([sample for sample, _ in pairs], OF)


def normalise(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def wanted(*numbers: int) -> Tensor:
    return normalise(rows_of(numbers, OF))


def test_images_are_decoded_and_stored(tmp_path: Path) -> None:
    images = Images(tmp_path)
    assert torch.equal(images([(3, 0), (1, 0)]), wanted(3, 1))
    assert images.decoded == [3, 1]
    assert not any(tmp_path.iterdir())
    images.close()
    assert holds(read(tmp_path, OF), [1, 3])
    images.close()
    again = Images(tmp_path)
    assert torch.equal(again([(1, 0), (3, 0), (1, 0)]), wanted(1, 3, 1))
    assert again.decoded == []


def test_some_are_there_and_some_are_not_in_any_order(tmp_path: Path) -> None:
    fill(tmp_path, OF, [0, 4], [7])
    images = Images(tmp_path)
    assert torch.equal(images([(n, 0) for n in (2, 7, 0, 9, 4)]), wanted(2, 7, 0, 9, 4))
    assert images.decoded == [2, 9]


def test_views_are_not_looked_at(tmp_path: Path) -> None:
    """Each epoch of a live run is a view, and its images are the same."""
    fill(tmp_path, OF, range(COUNT))
    images = Images(tmp_path)
    assert torch.equal(images([(2, 5), (3, 8)]), wanted(2, 3))


def test_only_decoding_counts_as_seconds(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.writer._since -= 1000  # what a frozen part would have taken meanwhile
    images([(0, 0)])
    images.close()
    assert read(tmp_path, OF).seconds_a_row < 100
