"""Prepared 8-bit images from the store: decoding bounds small models, so it is done once, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tlcompile.data.digests import Keys
from tlcompile.data.loading import Pair
from tlcompile.features.extract import BlockWriter
from tlcompile.store.store import FeatureSet


class StoredPixels:
    """Images after resize and crop; those that the store does not have are decoded and stored.

    Args:
        stored: The set of such images.
        digests: (samples, 32) digests of the samples' bytes.
        decode: Reads and prepares some samples, (N, C, H, W) uint8.
        normalise: The last step, to float32.
    """

    def __init__(
        self,
        stored: FeatureSet,
        digests: Keys,
        decode: Callable[[Sequence[Pair]], Tensor],
        normalise: Callable[[Tensor], Tensor],
    ) -> None:
        self.stored, self.digests = stored, digests
        self.decode, self.normalise = decode, normalise
        self.writer = BlockWriter([stored])
        stored.refresh()

    def __call__(self, pairs: Sequence[Pair]) -> Tensor:
        """Return images, ready for a model, in the order of the pairs; views are not looked at.

        Shape:
            out: (N, C, H, W) float32
        """
        keys = self.digests[[sample for sample, _ in pairs]]
        rows = self.stored.locate(keys)
        if (rows >= 0).all():
            return self.normalise(self.stored.gather(rows))
        absent = np.flatnonzero(rows < 0)
        since = time.monotonic()
        pixels = self.decode([pairs[int(i)] for i in absent])
        self.writer.add(keys[absent], (pixels,), time.monotonic() - since)
        if len(absent) < len(pairs):
            every = pixels.new_empty(len(pairs), *pixels.shape[1:])
            every[torch.from_numpy(absent)] = pixels
            there = np.flatnonzero(rows >= 0)
            every[torch.from_numpy(there)] = self.stored.gather(rows[there])
            pixels = every
        return self.normalise(pixels)

    def close(self) -> None:
        """Commit what has been decoded."""
        self.writer.flush()
