"""A fixed number of augmented views an image, whose features can be kept. Knows no store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tlcompile.data.augment import Augmentation, Mirror, UpsideDown
from tlcompile.data.digests import KEY_BYTES, Keys
from tlcompile.errors.data import ViewCountError
from tlcompile.recipe.image_changes import Change

# Flips alone leave nothing to draw: each view is a flip, and the first is the image as it is.
EXACT_VIEWS: MappingProxyType[frozenset[str], tuple[tuple[Change, ...], ...]] = MappingProxyType(
    {
        frozenset({"horizontal_flip"}): ((), (Mirror(),)),
        frozenset({"vertical_flip"}): ((), (UpsideDown(),)),
        frozenset({"horizontal_flip", "vertical_flip"}): (
            (),
            (Mirror(),),
            (UpsideDown(),),
            (Mirror(), UpsideDown()),
        ),
    }
)


@dataclass(frozen=True)
class Views:
    """The views of all images: view number `v` of an image is always the same.

    Args:
        changes: Done in this order.
        size: Side of the square that the model wants.
        seed: Decides all draws, with the view and the sample's bytes.
        count: Views an image; views that are there stay as they are when it grows.

    Raises:
        ViewCountError: Flips alone make another number of views.
    """

    changes: tuple[Change, ...]
    size: int
    seed: int
    count: int

    def __post_init__(self) -> None:
        exact, names = self.exact, tuple(change.word for change in self.changes)
        if exact is not None and len(exact) != self.count:
            raise ViewCountError(
                names=names, found=self.count, wanted=len(exact), key=("features", "views")
            )

    @property
    def exact(self) -> tuple[tuple[Change, ...], ...] | None:
        """Return the changes of each view where nothing is drawn: of flips alone."""
        return EXACT_VIEWS.get(frozenset(change.word for change in self.changes))

    def augmentation(self, view: int) -> Augmentation | None:
        """Return what makes a view; None: it is the image as it is."""
        exact = self.exact
        if exact is None:
            return Augmentation(self.changes, self.size, self.seed, view)
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
