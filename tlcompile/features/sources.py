"""Where a batch of boundary rows comes from: kept in memory, or computed live. Equal to the bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tlcompile.data.samples import generator
from tlcompile.features.prefix import Prefix, Rows, chunks_of, gather

MEMORY_SHARE = 0.5  # of the memory that is free now; the rest is for images, weights and gradients

Loader = Callable[[Sequence[int], int], Tensor]  # (indices, epoch or view) -> images (N, C, H, W)


class Source(Protocol):
    """Boundary rows and labels of one split."""

    @property
    def labels(self) -> Tensor:
        """(N,) class indices."""
        ...

    def batches(
        self, order: Sequence[int], batch_size: int, epoch: int
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield (rows, labels) in the given order."""
        ...


@dataclass(frozen=True)
class LiveSource:
    """Read images and run the prefix in every epoch.

    The prefix runs over whole chunks of the epoch's order, which then feed several small batches:
    it does not depend on what is being trained.

    Attributes:
        load: Gives images for indices; augmentation is a function of the epoch, or of the view.
        prefix: The frozen part.
        labels: (N,) class indices.
        views: Augmented views an image, of which each epoch draws one; None: an epoch is a view.
        seed: Draws the view of a sample in an epoch.
    """

    load: Loader
    prefix: Prefix
    labels: Tensor
    views: int | None = None
    seed: int = 0

    def batches(
        self, order: Sequence[int], batch_size: int, epoch: int
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield (rows, labels) in the given order."""
        size = self.prefix.chunk_size if self.prefix.model.boundary else batch_size
        chunks = chunks_of(order, size)
        waiting: Rows = ()
        for batch in chunk_batches(order, batch_size):
            while not waiting or len(waiting[0]) < len(batch):
                rows = self.prefix(self._images(next(chunks), epoch))
                waiting = _joined(waiting, rows)
            count = len(batch)
            device = waiting[0].device
            yield gather(waiting, range(count)), self.labels[batch].to(device)
            waiting = gather(waiting, range(count, len(waiting[0])))

    def _images(self, chunk: list[int], epoch: int) -> Tensor:
        if self.views is None:
            return self.load(chunk, epoch)
        drawn = draw_views(self.seed, epoch, len(self.labels), self.views)
        return torch.cat([self.load([i], int(drawn[i])) for i in chunk])


def _joined(first: Rows, second: Rows) -> Rows:
    return tuple(map(torch.cat, zip(first, second, strict=True))) if first else second


def chunk_batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut an order into batches; a last batch of one joins the one before.

    BatchNorm in train mode refuses a single sample.
    """
    batches = list(chunks_of(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1 and batch_size > 1:
        last = batches.pop()
        batches[-1] = batches[-1] + last
    return batches


@dataclass(frozen=True)
class KeptSource:
    """Rows computed once for an image, or once for each of its views.

    Attributes:
        rows: For each view, boundary rows of all samples, in order.
        labels: (N,) class indices.
        seed: Draws the view of a sample in an epoch.
    """

    rows: tuple[Rows, ...]
    labels: Tensor
    seed: int = 0

    def batches(
        self, order: Sequence[int], batch_size: int, epoch: int
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield (rows, labels) in the given order."""
        device = self.rows[0][0].device
        many = len(self.rows) > 1
        drawn = draw_views(self.seed, epoch, len(self.labels), len(self.rows))
        for batch in chunk_batches(order, batch_size):
            if not many:
                rows = gather(self.rows[0], batch)
            else:
                picked = [gather(self.rows[int(drawn[i])], [i]) for i in batch]
                rows = tuple(map(torch.cat, zip(*picked, strict=True)))
            yield rows, self.labels[batch].to(device)


def draw_views(seed: int, epoch: int, count: int, views: int) -> Tensor:
    """Draw the view of each of `count` samples in an epoch, the same live and kept."""
    draw = generator(seed, "views", epoch)
    return torch.randint(views, (count,), generator=draw)


def compute_rows(
    load: Loader,
    prefix: Prefix,
    count: int,
    *,
    views: int = 1,
    advance: Callable[[int], None] = lambda _count: None,
) -> tuple[Rows, ...]:
    """Run the prefix once over every image, for each view.

    Args:
        load: Gives images for indices; a view is an epoch of augmentation.
        prefix: The frozen part.
        count: Number of samples.
        views: Augmented views an image; 1 without augmentation.
        advance: Called with the number of images done, for a progress bar.
    """
    kept: list[Rows] = []
    for view in range(views):
        parts = []
        for chunk in chunks_of(range(count), prefix.chunk_size):
            parts.append(prefix(load(chunk, view)))
            advance(len(chunk))
        kept.append(tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    return tuple(kept)


def fits_in_memory(num_bytes: int, device: torch.device) -> bool:
    """Tell whether features of this size may be kept where they are computed."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return num_bytes <= free * MEMORY_SHARE
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return num_bytes <= 2**30  # not told by the system; a gibibyte is everywhere
    return num_bytes <= free * MEMORY_SHARE
