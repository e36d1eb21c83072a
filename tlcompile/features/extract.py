"""Compute the rows that the store does not have yet, block by block.

What is committed stays, whatever happens: a kill costs at most the block that was being filled.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tlcompile.data.loading import Pair
from tlcompile.errors.run import RunError
from tlcompile.features.batches import cut
from tlcompile.features.layout import taken
from tlcompile.features.prefix import Loader, Rows, join
from tlcompile.features.sources import pairs_at
from tlcompile.recipe.sizes import show_bytes
from tlcompile.store.store import FeatureSet, Keys

BLOCK_BYTES = 8 * 2**20  # of all boundaries together; filling a block takes three times as much
BLOCK_ROWS = 64  # at least, so that large rows do not make a file of each few
BLOCK_SECONDS = 10.0  # work that a kill may cost, and how soon others see progress


class BlockWriter:
    """Collects rows, and commits them as one block for each set."""

    def __init__(self, sets: Sequence[FeatureSet]) -> None:
        self.sets = sets
        self._start()

    def add(self, keys: Keys, rows: Rows, seconds: float) -> None:
        """Take the rows of some samples, one tensor for each set; commits when there are enough.

        Args:
            keys: (N, 32).
            rows: One tensor (N, ...) for each set.
            seconds: Spent on computing them.
        """
        self._seconds += seconds
        self._keys.append(keys)
        self._rows.append(tuple(tensor.cpu() for tensor in rows))
        self._bytes += sum(tensor.numel() * tensor.element_size() for tensor in rows)
        enough = self._bytes >= BLOCK_BYTES and sum(map(len, self._keys)) >= BLOCK_ROWS
        if enough or time.monotonic() - self._since >= BLOCK_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what has been collected.

        Raises:
            RunError: The disk did not let it.
        """
        if not self._keys:
            return
        keys = np.concatenate(self._keys)
        for one, rows in zip(self.sets, join(self._rows), strict=True):
            new = np.flatnonzero(one.locate(keys) < 0)  # one set may know what another does not
            if len(new):
                all_new = len(new) == len(keys)
                some = rows if all_new else taken(rows, torch.from_numpy(new))
                one.write(keys[new], some, self._seconds)
        self._start()

    def _start(self) -> None:
        self._keys: list[Keys] = []
        self._rows: list[Rows] = []
        self._bytes = 0
        self._seconds = 0.0
        self._since = time.monotonic()


@dataclass
class Report:
    """What a look into the store found.

    Attributes:
        rows: Rows that were wanted.
        misses: Rows that had to be computed here.
        num_bytes: Bytes of the rows that were wanted.
        seconds: Spent on computing.
        saved: Seconds that computing the hits took when it was done.
    """

    rows: int = 0
    misses: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    saved: float = 0.0

    @property
    def hits(self) -> int:
        """Return the rows that were there."""
        return self.rows - self.misses

    def worded(self) -> str:
        """Return what the store did, in one line."""
        done = f"{self.rows:,} rows: {self.hits:,} hits, {self.misses:,} misses"
        if self.misses:
            done += f" computed in {self.seconds:.1f} s"
        return f"{done}, {show_bytes(self.num_bytes)}, {self.saved:.1f} s saved"

    def as_data(self) -> dict[str, float]:
        """Return it for a record."""
        return {
            "rows": self.rows,
            "hits": self.hits,
            "misses": self.misses,
            "bytes": self.num_bytes,
            "seconds": round(self.seconds, 3),
            "seconds_saved": round(self.saved, 3),
        }

    def __iadd__(self, other: Report) -> Report:
        self.rows += other.rows
        self.misses += other.misses
        self.num_bytes += other.num_bytes
        self.seconds += other.seconds
        self.saved += other.saved
        return self


def missing(sets: Sequence[FeatureSet], keys: Keys) -> np.ndarray:
    """Return which rows at least one set does not have; of equal keys only the first."""
    absent = np.zeros(len(keys), dtype=bool)
    for one in sets:
        absent |= one.locate(keys) < 0
    places = np.flatnonzero(absent)
    _, first = np.unique(whole(keys[places]), return_index=True)
    kept: np.ndarray = places[np.sort(first)]
    return kept


def whole(keys: Keys) -> np.ndarray:
    """Return each key as one value: np.unique copies rows of bytes several times."""
    return np.ascontiguousarray(keys).view(f"V{keys.shape[1]}").ravel()


def extract(
    sets: Sequence[FeatureSet],
    keys: Keys,
    load: Loader,
    compute: Callable[[Tensor], Rows],
    *,
    chunk_size: int,
    views: int = 1,
    advance: Callable[[int], None] = lambda _count: None,
    loaded: Callable[[], None] = lambda: None,
) -> Report:
    """See to it that every set has a row for every key.

    Other processes that want the same wait for this one, and take what it has computed.

    Args:
        sets: One for each boundary tensor.
        keys: (samples * views, 32) row keys; those of a sample's views stand together.
        load: Reads images, each in its view.
        compute: The frozen part: images to one tensor for each set.
        chunk_size: Images a pass.
        views: Views a sample.
        advance: Called with the number of rows that are there, for a progress bar.
        loaded: Called when the last image has been loaded, before its row is committed: where all
            rows are there, what was kept of their images is there, too.

    Raises:
        RunError: The disk did not let it; what was committed stays.
        DataError: An image is bad; what was computed before it stays.
    """
    report = Report(rows=len(keys))
    with contextlib.ExitStack() as leases:
        for one in sorted(sets, key=lambda one: one.about.key):
            leases.enter_context(one.lease(keys))
        wanted = missing(sets, keys)
        report.misses = len(wanted)
        advance(len(keys) - len(wanted))
        start = time.monotonic()
        if len(wanted):
            places = _whole_samples(wanted, chunk_size, views)
            parts = ((keys[some], pairs_at(some, views)) for some in places)
            writer, images = BlockWriter(sets), _loaded_ahead(parts, load, loaded)
            with _committed(writer, loaded), contextlib.closing(images):
                _compute(writer, cut(images, chunk_size), compute, advance)
            report.seconds = time.monotonic() - start
    for one in sets:
        one.mark_used()
        report.num_bytes += one.row_bytes * len(keys)
        report.saved += one.seconds_a_row * report.hits / len(sets)
    return report


def _whole_samples(places: np.ndarray, size: int, views: int) -> Iterator[np.ndarray]:
    """Cut places into runs of `size`, or more where a sample's views would come apart.

    Views that are loaded together are decoded once.
    """
    samples = places // views
    start = 0
    while start < len(places):
        last = samples[min(start + size, len(places)) - 1]
        end = int(np.searchsorted(samples, last, side="right"))
        yield places[start:end]
        start = end


@contextlib.contextmanager
def _committed(writer: BlockWriter, loaded: Callable[[], None]) -> Iterator[None]:
    """Commit what has been computed, however computing ends."""
    try:
        yield
    except RunError:
        raise  # the disk, which would refuse again
    except BaseException:
        with contextlib.suppress(RunError):  # Ctrl-C on a full disk is Ctrl-C
            loaded()
            writer.flush()
        raise
    writer.flush()


def _compute(
    writer: BlockWriter,
    chunks: Iterator[tuple[Tensor, ...]],
    compute: Callable[[Tensor], Rows],
    advance: Callable[[int], None],
) -> None:
    since = time.monotonic()
    for keys, images in chunks:
        rows = compute(images)
        since, before = time.monotonic(), since
        writer.add(keys.numpy(), rows, since - before)
        advance(len(keys))


def _loaded_ahead(
    parts: Iterator[tuple[Keys, list[Pair]]], load: Loader, loaded: Callable[[], None]
) -> Generator[tuple[Tensor, ...]]:
    """Yield keys and images of each part, while the next one is being read."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [(keys, pool.submit(load, pairs)) for keys, pairs in islice(parts, 1)]
        while waiting:
            keys, reading = waiting.pop()
            images = reading.result()
            waiting += [(keys, pool.submit(load, pairs)) for keys, pairs in islice(parts, 1)]
            if not waiting:
                loaded()
            yield torch.from_numpy(keys), images
