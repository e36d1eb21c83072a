"""Name every sample by the SHA-256 of its stored bytes, so that a name or a date never matters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tlcompile.data.samples import Samples
from tlcompile.data.threads import in_order
from tlcompile.errors.data import UnreadableImagesError

Keys = npt.NDArray[np.uint8]  # (N, 32), one SHA-256 a row
KEY_BYTES = 32


def digest(data: bytes) -> bytes:
    """Return the SHA-256 of a sample's bytes."""
    return hashlib.sha256(data).digest()


def digests_of(
    samples: Samples, *, workers: int, advance: Callable[[int], None] = lambda _count: None
) -> Keys:
    """Hash the stored bytes of every sample; nothing is decoded.

    Args:
        samples: What to hash.
        workers: Threads (reading and hashing let go of the interpreter's lock).
        advance: Called with the number of samples done, for a progress bar.

    Raises:
        UnreadableImagesError: At least one file cannot be read; holds them all, in order.

    Shape:
        out: (N, 32) uint8
    """
    keys = np.empty((len(samples), KEY_BYTES), np.uint8)
    bad: list[tuple[str, str]] = []

    def hashed(index: int) -> bytes | UnreadableImagesError:
        try:
            return digest(samples.fetch(index))
        except UnreadableImagesError as error:
            return error

    for index, found in enumerate(in_order(hashed, range(len(samples)), workers)):
        if isinstance(found, UnreadableImagesError):
            bad += found.images
        else:
            keys[index] = np.frombuffer(found, np.uint8)
        advance(1)
    if bad:
        raise UnreadableImagesError(images=tuple(bad))
    return keys
