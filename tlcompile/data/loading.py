"""Read and prepare images, several at a time. Knows nothing of labels or models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from tlcompile.data.augment import Augmentation
from tlcompile.data.samples import Samples
from tlcompile.errors.data import MixedSizesError
from tlcompile.zoo.preprocessing import Preprocessing


def load_images(
    samples: Samples,
    indices: Sequence[int],
    preprocessing: Preprocessing,
    *,
    workers: int,
    augmentation: Augmentation | None = None,
) -> Tensor:
    """Load these samples, in this order; the number of workers changes nothing but the time.

    Args:
        samples: Where to read.
        indices: Which samples.
        preprocessing: What every image goes through. After an augmentation that crops to size
            only its last step, the normalisation, is left to do.
        workers: Threads (Pillow and torch let go of the interpreter's lock); 0 or 1 for none.
        augmentation: Applied first, to the 8-bit image.

    Raises:
        UnreadableImagesError: An image is bad; the first one in the order asked for.
        MixedSizesError: Images differ in size, which only happens without a crop.

    Shape:
        out: (N, C, H, W) float32
    """

    def load(index: int) -> Tensor:
        image = samples.read(index)
        if augmentation is None:
            return preprocessing.apply(image)
        image = augmentation(image, index)
        return preprocessing.normalise(image) if augmentation.sizes else preprocessing.apply(image)

    side = preprocessing.size or 0
    batch = torch.empty(0, preprocessing.channels, side, side)
    for position, image in enumerate(_in_order(load, indices, workers)):
        if position == 0:
            batch = image.new_empty(len(indices), *image.shape)
        if image.shape != batch.shape[1:]:
            raise MixedSizesError(
                path=samples.ids[indices[position]],
                found=tuple(image.shape),
                wanted=tuple(batch.shape[1:]),
            )
        batch[position] = image
    return batch


def _in_order(
    load: Callable[[int], Tensor], indices: Sequence[int], workers: int
) -> Iterator[Tensor]:
    if workers <= 1:
        yield from map(load, indices)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(load, indices)
