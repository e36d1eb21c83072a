"""Random changes to images, each a pure function of (seed, view, the image's stored bytes)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlcompile.data.samples import generator
from tlcompile.data.transforms import DrawingFrom, transform_of
from tlcompile.errors.augmentation import ImpossibleChangeError, UnknownMaskError
from tlcompile.recipe.image_changes import Change, RandomZoomOut

VERSION = 1  # of the changes; count it up with any change to what they do to a pixel


class Mirror(Change):
    """Left and right exchanged, always."""

    word = "mirror"
    mask = "moves"
    axis: ClassVar[int] = -1


class UpsideDown(Change):
    """Top and bottom exchanged, always."""

    word = "upside_down"
    mask = "moves"
    axis: ClassVar[int] = -2


# Not for recipes, which name the random ones: what views of flips alone are made of.
EXACT = (Mirror, UpsideDown)


@dataclass(frozen=True)
class Augmentation:
    """What one view, or one epoch, does to images; called as `augmentation(image, key)`.

    Args:
        changes: Done in this order.
        size: Side of the square that the model wants.
        seed: Decides all draws, with the view and the sample's key; two seeds, where the run's own
            takes part.
        view: Counts from 0; an epoch, where nothing is kept.
    """

    changes: tuple[Change, ...]
    size: int
    seed: int | tuple[int, int]
    view: int

    @property
    def sizes(self) -> bool:
        """Say whether the result has its final size, so that resizing it again is wrong."""
        sizing = [c.sizes for c in self.changes if c.sizes or isinstance(c, RandomZoomOut)]
        return bool(sizing) and sizing[-1]

    @property
    def tag(self) -> str:
        """Return all that decides what becomes of an image's pixels."""
        names = ", ".join(change.tag for change in self.changes)
        if all(isinstance(change, EXACT) for change in self.changes):
            return f"augment {VERSION}: {names}"
        seed = f"size {self.size}, seed {self.seed}, view {self.view}"
        return f"augment {VERSION}: {names}; {seed}"

    def __call__(self, image: Tensor, key: bytes) -> Tensor:
        """Change one image; the global random state is neither read nor moved.

        Args:
            image: The image as it was decoded.
            key: SHA-256 of its stored bytes: other images, names and places change no draw.

        Raises:
            ImpossibleChangeError: The image is too small for a change.

        Shape:
            in: (C, H, W) uint8   out: (C, size, size) uint8 with a crop, else as it came in; larger
                behind zoom_out
        """
        for change, random in self._draws(key):
            image = self._changed(image, change, random, mask=False)
        return image

    def on_mask(self, mask: Tensor, key: bytes) -> Tensor:
        """Move the pixels of an image's mask as the image's own; what comes from nowhere is 255.

        Args:
            mask: As large as the image.
            key: The image's, not the mask's.

        Raises:
            UnknownMaskError: A change does not say where it moves the pixels.

        Shape:
            in: (1, H, W) uint8   out: as for the image
        """
        for change, random in self._draws(key):
            if change.mask == "unknown":
                raise UnknownMaskError(name=change.word)
            if change.mask == "moves":
                mask = self._changed(mask, change, random, mask=True)
        return mask

    def _draws(self, key: bytes) -> Iterator[tuple[Change, torch.Generator]]:
        """Yield each change with a generator of its own: adding a flip leaves the crops alone."""
        for change in self.changes:
            yield change, generator(self.seed, self.view, key.hex(), change.word)

    def _changed(
        self, image: Tensor, change: Change, random: torch.Generator, *, mask: bool
    ) -> Tensor:
        if isinstance(change, EXACT):
            return image.flip(change.axis)
        transform = transform_of(change, self.size, mask=mask)
        try:
            with DrawingFrom(random):
                changed = transform(image)
        except (RuntimeError, ValueError) as cause:
            reason = str(cause).splitlines()[0]
            height, width = image.shape[-2:]
            found = f"{width} x {height} pixels"
            raise ImpossibleChangeError(name=change.word, size=found, reason=reason) from cause
        return changed
