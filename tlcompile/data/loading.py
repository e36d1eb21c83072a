"""Read and prepare images, several at a time. Knows nothing of labels or models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import Keys, digest
from tlcompile.data.samples import Samples
from tlcompile.data.threads import in_order
from tlcompile.errors.augmentation import ImpossibleChangeError
from tlcompile.errors.data import ImageChangedError, MixedSizesError
from tlcompile.zoo.preprocessing import Preprocessing

Pair = tuple[int, int]  # a sample, and its view; where there are no views, the epoch
Augmentations = Callable[[int], Augmentation | None]  # what makes a view, or is done in an epoch


def load_images(
    samples: Samples,
    indices: Sequence[int],
    preprocessing: Preprocessing,
    *,
    workers: int,
    augmentation: Augmentation | None = None,
    digests: Keys | None = None,
) -> Tensor:
    """Load these samples, ready for a model: `load_pixels`, then normalised.

    Shape:
        out: (N, C, H, W) float32
    """
    pixels = load_pixels(
        samples,
        [(index, 0) for index in indices],
        preprocessing,
        workers=workers,
        augmentations=lambda _view: augmentation,
        digests=digests,
    )
    return preprocessing.normalise(pixels)


def load_pixels(
    samples: Samples,
    pairs: Sequence[Pair],
    preprocessing: Preprocessing,
    *,
    workers: int,
    augmentations: Augmentations = lambda _view: None,
    digests: Keys | None = None,
) -> Tensor:
    """Load samples in their views, in this order; the number of workers changes nothing but the time.

    Args:
        samples: Where to read.
        pairs: Which samples, each in which view; a sample's views that stand together are
            decoded once.
        preprocessing: What every image goes through, but for its last step. After an augmentation
            that crops to size nothing is left to do.
        workers: Threads (Pillow and torch let go of the interpreter's lock); 0 or 1 for none.
        augmentations: What makes a view, applied first, to the 8-bit image.
        digests: What `digests_of(samples)` gave: the bytes that are decoded have these digests.

    Raises:
        UnreadableImagesError: An image is bad; the first one in the order asked for.
        ImageChangedError: An image is no longer the one that was hashed.
        ImpossibleChangeError: An image is too small for what an augmentation does.
        MixedSizesError: Images differ in size, which only happens without a crop.

    Shape:
        out: (N, C, H, W) uint8
    """
    groups = [(index, [view for _, view in same]) for index, same in groupby(pairs, itemgetter(0))]

    def load(group: tuple[int, list[int]]) -> list[Tensor]:
        index, views = group
        data = samples.fetch(index)
        changes = [augmentations(view) for view in views]
        hashed = any(changes) or digests is not None
        key = _key(samples, index, data, digests) if hashed else b""
        image = samples.decode(index, data)
        name = samples.ids[index]
        return [_view(image, change, key, preprocessing, name) for change in changes]

    side = preprocessing.size or 0
    batch = torch.empty(0, preprocessing.channels, side, side, dtype=torch.uint8)
    position = 0
    for (index, _), images in zip(groups, in_order(load, groups, workers), strict=True):
        for image in images:
            if position == 0:
                batch = image.new_empty(len(pairs), *image.shape)
            if image.shape != batch.shape[1:]:
                raise MixedSizesError(
                    path=samples.ids[index],
                    found=tuple(image.shape),
                    wanted=tuple(batch.shape[1:]),
                )
            batch[position] = image
            position += 1
    return batch


def _view(
    image: Tensor, change: Augmentation | None, key: bytes, preprocessing: Preprocessing, name: str
) -> Tensor:
    if change is None:
        return preprocessing.pixels(image)
    try:
        image = change(image, key)
    except ImpossibleChangeError as error:
        error.path = name
        raise
    return preprocessing.with_channels(image) if change.sizes else preprocessing.pixels(image)


def _key(samples: Samples, index: int, data: bytes, digests: Keys | None) -> bytes:
    """Return the digest of a sample's bytes, which must be the one that is known of it."""
    key = digest(data)
    if digests is not None and key != digests[index].tobytes():
        raise ImageChangedError(
            path=samples.ids[index], found=key.hex(), wanted=digests[index].tobytes().hex()
        )
    return key
