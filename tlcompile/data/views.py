"""A fixed number of augmented views an image, whose features can be kept. Knows no store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import KEY_BYTES, Keys
from tlcompile.errors.data import ViewCountError

# Flips alone leave nothing to draw: each view is a flip, and the first is the image as it is.
EXACT_VIEWS: MappingProxyType[frozenset[str], tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        frozenset({"horizontal_flip"}): ((), ("mirror",)),
        frozenset({"vertical_flip"}): ((), ("upside_down",)),
        frozenset({"horizontal_flip", "vertical_flip"}): (
            (),
            ("mirror",),
            ("upside_down",),
            ("mirror", "upside_down"),
        ),
    }
)


@dataclass(frozen=True)
class Views:
    """The views of all images: view number `v` of an image is always the same.

    Args:
        names: Names in `AUGMENTATIONS`, done in this order.
        size: Side of the square that the model wants.
        seed: Decides all draws, with the view and the sample's bytes.
        count: Views an image; views that are there stay as they are when it grows.

    Raises:
        ViewCountError: Flips alone make another number of views.
    """

    names: tuple[str, ...]
    size: int
    seed: int
    count: int

    def __post_init__(self) -> None:
        exact = EXACT_VIEWS.get(frozenset(self.names))
        if exact is not None and len(exact) != self.count:
            raise ViewCountError(
                names=self.names, found=self.count, wanted=len(exact), key=("features", "views")
            )

    def augmentation(self, view: int) -> Augmentation | None:
        """Return what makes a view; None: it is the image as it is."""
        exact = EXACT_VIEWS.get(frozenset(self.names))
        if exact is None:
            return Augmentation(self.names, self.size, self.seed, view)
        return Augmentation(exact[view], self.size, self.seed, view) if exact[view] else None

    def tag(self, view: int) -> str:
        """Return all that decides the view's pixels, for its row key; "": the image as it is."""
        augmentation = self.augmentation(view)
        return augmentation.tag if augmentation else ""


def row_keys(digests: Keys, tag: str) -> Keys:
    """Name the rows of one view of samples; the image as it is has its own digest.

    Shape:
        in: (N, 32) uint8   out: (N, 32) uint8
    """
    if not tag:
        return digests
    suffix = tag.encode()
    joined = b"".join(hashlib.sha256(row.tobytes() + suffix).digest() for row in digests)
    return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)
