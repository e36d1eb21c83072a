"""Name every sample by the SHA-256 of its stored bytes, so that a name or a date never matters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

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


@dataclass(frozen=True)
class SharedImages:
    """Images of two splits whose files are equal to the byte.

    Attributes:
        splits: Names of the two.
        pairs: Positions in the first and in the second.
    """

    splits: tuple[str, str]
    pairs: tuple[tuple[int, int], ...]


def shared_between_splits(digests: Mapping[str, Keys]) -> list[SharedImages]:
    """Find the images that stand in two splits: a model is judged by what it has learned by heart.

    Args:
        digests: What `digests_of` gave, by split.
    """
    found = []
    for first, second in combinations(digests, 2):
        at = {row.tobytes(): index for index, row in reversed(list(enumerate(digests[first])))}
        keys = [row.tobytes() for row in digests[second]]
        pairs = tuple((at[key], index) for index, key in enumerate(keys) if key in at)
        if pairs:
            found.append(SharedImages((first, second), pairs))
    return found


def worded(shared: SharedImages, ids: Mapping[str, Sequence[str]], limit: int = 3) -> str:
    """Say it in one line, with the first pairs by name."""
    first, second = shared.splits
    pairs = [f"{ids[first][a]} = {ids[second][b]}" for a, b in shared.pairs[:limit]]
    more = ", ..." if len(shared.pairs) > limit else ""
    count = len(shared.pairs)
    many = "1 image is" if count == 1 else f"{count:,} images are"
    return f"{many} in {first} and in {second}, to the byte: {', '.join(pairs)}{more}"
