"""One set of stored rows, as a run sees it: find, read, write, wait for others."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tlcompile import durable
from tlcompile.errors.features import CacheFullError, CacheNotWritableError
from tlcompile.errors.run import DiskFullError, NoPermissionError, RunError, WriteFailedError
from tlcompile.store.about import ABOUT, DTYPES, About, about_bytes, read_about
from tlcompile.store.blocks import (
    Block,
    NotABlockError,
    bits_of,
    in_memory_order,
    is_block_name,
    listed,
    open_block,
    open_file,
    write_block,
)
from tlcompile.store.index import KeyIndex, Keys, RowNumbers
from tlcompile.store.lease import LOCK, wait_for_lock

PATIENCE: Final = 30.0  # seconds without progress of another process
_EVICTIONS: Final = 8  # times in a row that the folder may go while one block is written


class FeatureSet:
    """Rows of one vertex under one fingerprint, in a folder that processes share.

    What a process has mapped stays readable, whatever becomes of the folder. One thread refreshes
    and writes; any number may gather.

    Attributes:
        about: What it holds.
        damaged: What was found damaged, one line for each file.
    """

    def __init__(self, cache: Path, folder: Path, quarantine: Path, about: About) -> None:
        self.about = about
        self.damaged: list[str] = []
        self._cache, self._folder, self._quarantine = cache, folder, quarantine
        self._blocks: dict[str, Block] = {}  # by file name, in the order of row numbers
        self._refused: set[str] = set()
        self._about_is_checked = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.about.row_bytes

    @property
    def seconds_a_row(self) -> float:
        """Seconds that computing a row took, on average; 0 without rows."""
        rows = sum(len(block.rows) for block in self._blocks.values())
        return sum(block.seconds for block in self._blocks.values()) / max(rows, 1)

    # Coming and going

    def refresh(self) -> bool:
        """Map blocks that have come since; say whether there are any.

        Each is verified whole before the first value is used. A damaged one is put aside and told
        in `damaged`, and its rows are missing.
        """
        self._check_about()
        known = self._blocks.keys() | self._refused
        names = [n for n in listed(self._folder) if is_block_name(n) and n not in known]
        if not names:
            return False
        with ThreadPoolExecutor(min(len(names), os.cpu_count() or 1)) as pool:
            opened = list(pool.map(self._open, names))  # hashing leaves the other threads free
        taken = [self._take(*pair) for pair in zip(names, opened, strict=True)]
        return any(taken)

    def _open(self, name: str) -> Block | Exception:
        try:
            return open_block(self._folder / name, self.about)
        except (NotABlockError, OSError) as error:
            return error

    def _take(self, name: str, opened: Block | Exception) -> bool:
        match opened:
            case Block():
                self._blocks[name] = opened
                for derived in ("_index", "_starts"):
                    self.__dict__.pop(derived, None)
                return True
            case FileNotFoundError():
                return False  # evicted, or put aside by another process
            case NotABlockError():
                self._put_aside(name, str(opened))
            case _:
                self._tell(name, f"it cannot be read: {opened}", "left where it is")
        self._refused.add(name)
        return False

    def _put_aside(self, name: str, reason: str) -> None:
        place = "left where it is"
        with contextlib.suppress(RunError):  # a cache that is only read
            aside = durable.put_aside(self._folder / name, self._quarantine)
            place = f"put aside as '{aside}'" if aside else "put aside by another process"
        self._tell(name, reason, place)

    def _tell(self, name: str, reason: str, place: str) -> None:
        self.damaged.append(f"'{self._folder / name}': {reason}; {place}")

    def _check_about(self) -> None:
        if self._about_is_checked:
            return
        try:
            with open_file(self._folder / ABOUT) as file:
                data = file.read()
        except OSError:
            return  # nothing is stored yet; and it is for people only
        self._about_is_checked = True
        found = read_about(data)
        if found != self.about:
            reason = f"it is about another set, {found.key}" if found else "it is not as written"
            self._put_aside(ABOUT, reason)
            with contextlib.suppress(RunError):
                durable.write_file(self._folder / ABOUT, about_bytes(self.about))

    def mark_used(self) -> None:
        """Note that the set has been used now, where it can be noted."""
        with contextlib.suppress(RunError):  # a cache that is only read; nothing stored
            durable.mark_used(self._folder / ABOUT)

    # Reading

    @cached_property
    def _index(self) -> KeyIndex:
        none = np.empty((0, 32), dtype=np.uint8)
        return KeyIndex(np.concatenate([none, *(block.keys for block in self._blocks.values())]))

    @cached_property
    def _starts(self) -> RowNumbers:
        counts = [len(block.rows) for block in self._blocks.values()]
        starts: RowNumbers = np.cumsum([0, *counts], dtype=np.int64)
        return starts

    def locate(self, keys: Keys) -> RowNumbers:
        """Return the row number of each key, -1 where it is missing.

        Row numbers hold for this object alone, and as long as it lives.

        Shape:
            in: (N, 32)   out: (N,)
        """
        return self._index.find(keys)

    def gather(self, row_numbers: RowNumbers | Sequence[int]) -> Tensor:
        """Copy rows into memory of their own; dimensions are ordered there as they were written.

        Shape:
            in: (N,)   out: (N, *shape)
        """
        wanted = np.asarray(row_numbers, dtype=np.int64)
        if not len(wanted):
            return torch.empty(0, *self.about.shape, dtype=DTYPES[self.about.dtype])
        assert wanted.min() >= 0, "a missing row cannot be read"
        blocks = list(self._blocks.values())
        places = np.searchsorted(self._starts, wanted, side="right") - 1
        inside = wanted - self._starts[places]
        if (places == places[0]).all():
            return _gather_one(blocks[places[0]], torch.from_numpy(inside))
        return _gather_many([blocks[p] for p in places], inside.tolist())

    # Writing

    def write(self, keys: Keys, rows: Tensor, seconds: float) -> None:
        """Store rows as one block, durably and whole, for this process and all others.

        Args:
            keys: (N, 32).
            rows: (N, *shape), of the set's dtype, on any device, with any strides.
            seconds: Spent on computing them.

        Raises:
            CacheFullError: There is no room.
            CacheNotWritableError: The disk did not let it for another reason, or lost it at once.
        """
        if not len(rows):
            return
        try:
            is_there = self._write_and_map(keys, rows, seconds)
        except DiskFullError as error:
            needed = max(error.needed_bytes, len(rows) * self.row_bytes)
            free = error.free_bytes
            raise CacheFullError(path=self._cache, needed_bytes=needed, free_bytes=free) from error
        except NoPermissionError as error:
            raise CacheNotWritableError(path=self._cache, reason="no permission") from error
        except WriteFailedError as error:
            raise CacheNotWritableError(path=self._cache, reason=error.reason) from error
        if not is_there:
            reason = "what was written could not be read back"
            raise CacheNotWritableError(path=self._cache, reason=reason)

    def _write_and_map(self, keys: Keys, rows: Tensor, seconds: float) -> bool:
        for _ in range(_EVICTIONS):
            try:
                name = self._write_block(keys, rows, seconds)
            except WriteFailedError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                continue
            self._refused.discard(name)
            if name in self._blocks:
                return True
            opened = self._open(name)
            if not isinstance(opened, FileNotFoundError):
                return self._take(name, opened)
        return False

    def _write_block(self, keys: Keys, rows: Tensor, seconds: float) -> str:
        if not os.path.exists(self._folder / ABOUT):
            durable.write_file(self._folder / ABOUT, about_bytes(self.about))
        return write_block(self._folder, self.about, keys, rows, seconds)

    @contextmanager
    def lease(self, wanted: Keys, patience: float = PATIENCE) -> Iterator[None]:
        """Wait while another process computes rows of this set; then it is ours to compute.

        Inside, the set has been refreshed. It saves work only: nothing is wrong without it.

        Args:
            wanted: When all of these have come, there is nothing to wait for.
            patience: Seconds without progress after which it is not waited for any longer.
        """
        lock = wait_for_lock(
            self._folder / LOCK,
            patience,
            refresh=self.refresh,
            is_complete=lambda: bool((self.locate(wanted) >= 0).all()),
        )
        with lock or contextlib.nullcontext():
            self.refresh()
            if lock:
                self._sweep()
            yield

    def _sweep(self) -> None:
        with contextlib.suppress(RunError):  # the next one will
            durable.sweep_temporaries(self._folder)


def _gather_one(block: Block, inside: Tensor) -> Tensor:
    inverse = [block.order.index(d) for d in range(len(block.order))]
    return block.rows.permute(block.order).index_select(0, inside).permute(inverse)


def _gather_many(blocks: Sequence[Block], inside: Sequence[int]) -> Tensor:
    """Copy row by row: in a shuffled batch of many blocks, each row has a block of its own."""
    first = blocks[0]
    shape = (len(blocks), *first.rows.shape[1:])
    flat = torch.empty(math.prod(shape), dtype=first.rows.dtype)
    out = in_memory_order(flat, shape, first.order)
    bits = bits_of(out)
    for number, (block, row) in enumerate(zip(blocks, inside, strict=True)):
        bits[number] = block.bits[row]
    return out
