"""Where a batch of boundary rows comes from: kept, or computed live. Equal to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from tlcompile.data.loading import Pair
from tlcompile.data.samples import generator
from tlcompile.data.targets import Targets
from tlcompile.features.prefix import Loader, Prefix, Rows, chunks_of, gather, join
from tlcompile.store.store import FeatureSet

Batches = Sequence[Sequence[int]]  # the samples of each batch, in order


class Source(Protocol):
    """Boundary rows and targets of one split."""

    @property
    def targets(self) -> Targets:
        """What the outputs for each sample are compared with."""
        ...

    def batches(self, batches: Batches, epoch: int, first: int = 0) -> Iterator[tuple[Rows, Any]]:
        """Yield (rows, targets) of each batch of samples; those before `first` are skipped."""
        ...


@dataclass(frozen=True)
class LiveSource:
    """Read images and run the prefix in every epoch.

    The prefix runs over whole chunks of the epoch's order, which then feed several small batches:
    it does not depend on what is being trained.

    Attributes:
        load: Reads images, each in its view, or as the epoch changes it.
        prefix: The frozen part.
        targets: What the outputs for each sample are compared with.
        views: Augmented views an image, of which each epoch draws one; None: an epoch is a view.
        seed: Draws the view of a sample in an epoch.
    """

    load: Loader
    prefix: Prefix
    targets: Targets
    views: int | None = None
    seed: int = 0

    def batches(self, batches: Batches, epoch: int, first: int = 0) -> Iterator[tuple[Rows, Any]]:
        """Yield (rows, targets) of each batch; chunks lie as if none had been skipped."""
        if not self.prefix.model.boundary:
            for batch in batches[first:]:
                pairs = self.pairs(batch, epoch)
                rows = trainable(self.prefix(self.load(pairs)))
                yield rows, moved(self.targets.take(pairs), rows[0].device)
            return
        size = self.prefix.chunk_size
        pairs = self.pairs([sample for batch in batches for sample in batch], epoch)
        skipped = sum(map(len, batches[:first]))
        chunks = chunks_of(pairs[skipped - skipped % size :], size)
        waiting: Rows = ()
        drop, start = skipped % size, skipped
        for batch in batches[first:]:
            while not waiting or len(waiting[0]) < drop + len(batch):
                rows = trainable(self.prefix(self.load(next(chunks))))
                waiting = join([waiting, rows]) if waiting else rows
            end, device = drop + len(batch), waiting[0].device
            targets = self.targets.take(pairs[start : start + len(batch)])
            yield gather(waiting, range(drop, end)), moved(targets, device)
            waiting = gather(waiting, range(end, len(waiting[0])))
            drop, start = 0, start + len(batch)

    def pairs(self, order: Sequence[int], epoch: int) -> list[Pair]:
        """Return each sample with its view, or with the epoch that changes it."""
        if self.views is None:
            return [(sample, epoch) for sample in order]
        drawn = draw_views(self.seed, epoch, len(self.targets), self.views).tolist()
        return [(sample, drawn[sample]) for sample in order]


def trainable(rows: Rows) -> Rows:
    """Return rows as the trainable part reads them: half precision as fp32, in the same layout."""
    return tuple(t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in rows)


def moved(targets: Any, device: torch.device) -> Any:
    """Return the targets of a batch on a device: one tensor, or several that belong together."""
    if isinstance(targets, Tensor):
        return targets.to(device)
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), targets)


def chunk_batches(order: Sequence[int], batch_size: int) -> list[Sequence[int]]:
    """Cut an order into batches; a last batch of one joins the one before.

    BatchNorm in train mode refuses a single sample.
    """
    cuts = list(range(0, len(order), batch_size))
    if not cuts:  # of a rank, where there are fewer samples than ranks
        return []
    if len(cuts) > 1 and batch_size > 1 and len(order) - cuts[-1] == 1:
        cuts.pop()
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]


class Places(Protocol):
    """Rows that can be taken by their places; that of a view is `sample * views + view`."""

    def gather(self, places: NDArray[np.int64]) -> Rows:
        """Return the rows at these places, in this order."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Rows in memory of their own."""

    rows: Rows

    def gather(self, places: NDArray[np.int64]) -> Rows:
        """Return the rows at these places, in this order."""
        return gather(self.rows, torch.from_numpy(places))


@dataclass(frozen=True)
class InStore:
    """Rows in the store, read through memory maps: they take no memory of this process.

    Attributes:
        sets: One for each boundary.
        locations: For each set, where in it each place is.
        device: Where the rows go.
    """

    sets: Sequence[FeatureSet]
    locations: Sequence[NDArray[np.int64]]
    device: torch.device

    def gather(self, places: NDArray[np.int64]) -> Rows:
        """Return the rows at these places, in this order."""
        found = zip(self.sets, self.locations, strict=True)
        return tuple(one.gather(rows[places]).to(self.device) for one, rows in found)


@dataclass(frozen=True)
class KeptSource:
    """Rows that were computed once for an image, or once for each of its views.

    Attributes:
        rows: Where they are.
        targets: What the outputs for each sample are compared with.
        views: Views an image.
        seed: Draws the view of a sample in an epoch.
    """

    rows: Places
    targets: Targets
    views: int = 1
    seed: int = 0

    def batches(self, batches: Batches, epoch: int, first: int = 0) -> Iterator[tuple[Rows, Any]]:
        """Yield (rows, targets) of each batch of samples; those before `first` are skipped."""
        drawn = draw_views(self.seed, epoch, len(self.targets), self.views).numpy()
        for batch in batches[first:]:
            samples = np.asarray(batch, dtype=np.int64)
            views = drawn[samples]
            rows = trainable(self.rows.gather(samples * self.views + views))
            pairs = list(zip(samples.tolist(), views.tolist(), strict=True))
            yield rows, moved(self.targets.take(pairs), rows[0].device)


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
    advance: Callable[[int], Any] = lambda _count: None,
) -> Rows:
    """Run the prefix once over every sample in each of its views.

    Args:
        load: Reads images.
        prefix: The frozen part.
        count: Number of samples.
        views: Views a sample; a sample's rows stand together.
        advance: Called with the number of rows done, for a progress bar.
    """
    parts = []
    for chunk in chunks_of(range(count * views), prefix.chunk_size):
        parts.append(prefix(load(pairs_at(chunk, views))))
        advance(len(chunk))
    return join(parts)


def pairs_at(places: Iterable[int], views: int) -> list[Pair]:
    """Return the sample and the view of each place."""
    return [divmod(int(place), views) for place in places]
