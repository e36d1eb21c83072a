"""A block: one immutable file with some rows of a set. Its name is the SHA-256 of all its bytes.

    one line of JSON | zeros | keys, 32 bytes a row | zeros to a multiple of 4096 | rows

The rows stand in the order of dimensions that they had in memory. No pickle; nothing is rewritten.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcompile import durable
from tlcompile.durable.system import open_to_read
from tlcompile.store.about import DTYPES, FORMAT, About, is_digest
from tlcompile.store.index import KEY_BYTES, Keys

SUFFIX: Final = ".rows"
PAGE: Final = 4096  # bytes; rows begin at a page, so that a map of them is aligned for every dtype
_INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_LINE_LIMIT: Final = 1 << 16  # bytes of the first line


class NotABlockError(Exception):
    """The file is not the block that it should be; never leaves features/."""


@dataclass(frozen=True)
class Header:
    """The first line of a block.

    Attributes:
        format: Of this file; another one has another first line.
        byte_order: Of the machine that wrote the rows.
        key: Of the set; with vertex, shape and dtype as in `About`.
        order: Of dimensions in memory, the outermost first; rows are the outermost of all.
        rows: How many.
        seconds: Spent on computing them.
    """

    format: int
    byte_order: str
    key: str
    vertex: str
    shape: tuple[int, ...]
    dtype: str
    order: tuple[int, ...]
    rows: int
    seconds: float

    def line(self) -> bytes:
        """Write it; it has one spelling."""
        line = json.dumps(vars(self)).encode() + b"\n"
        assert len(line) <= _LINE_LIMIT, len(line)
        return line

    def places(self) -> tuple[int, int, int]:
        """Return where keys begin, where rows begin, and where they end."""
        keys = -(-len(self.line()) // KEY_BYTES) * KEY_BYTES
        rows = -(-(keys + self.rows * KEY_BYTES) // PAGE) * PAGE
        return keys, rows, rows + self.rows * self._about().row_bytes

    def belongs_to(self, about: About) -> bool:
        """Say whether these are rows of a set, readable on this machine."""
        return (self.format, self.byte_order, self._about()) == (FORMAT, sys.byteorder, about)

    def _about(self) -> About:
        return About(self.key, self.vertex, self.shape, self.dtype)


class Block(NamedTuple):
    """A verified block, mapped: the memory is the file's, not ours.

    Attributes:
        keys: (N, 32).
        rows: (N, *shape), with the strides that it had when it was written.
        bits: The same memory as integers, for numpy, which knows no bfloat16.
        order: Of dimensions in memory.
        seconds: Spent on computing it.
    """

    keys: Keys
    rows: Tensor
    bits: NDArray[np.generic]
    order: tuple[int, ...]
    seconds: float


# Writing


def write_block(folder: Path, about: About, keys: Keys, rows: Tensor, seconds: float) -> str:
    """Write rows as one file, whole or not at all; return its name.

    Raises:
        RunError: The disk did not let it.
    """
    assert keys.shape == (len(rows), KEY_BYTES), (keys.shape, rows.shape)
    assert keys.dtype == np.uint8, keys.dtype
    assert tuple(rows.shape[1:]) == about.shape, (rows.shape, about.shape)
    assert rows.dtype == DTYPES[about.dtype], (rows.dtype, about.dtype)
    header = Header(
        format=FORMAT,
        byte_order=sys.byteorder,
        key=about.key,
        vertex=about.vertex,
        shape=about.shape,
        dtype=about.dtype,
        order=memory_order(rows),
        rows=len(rows),
        seconds=seconds,
    )
    keys_at, rows_at, end = header.places()
    parts: list[bytes | memoryview] = [
        header.line().ljust(keys_at, b"\0"),
        np.ascontiguousarray(keys).data,
        bytes(rows_at - keys_at - keys.nbytes),
        _bytes_of(rows.detach().permute(header.order)),
    ]
    name = _digest(parts) + SUFFIX
    with durable.replacing(folder / name, end) as stream:
        for part in parts:
            stream.write(part)
    return name


def memory_order(rows: Tensor) -> tuple[int, ...]:
    """Return the dimensions from the outermost in memory inwards; rows are kept apart."""
    strides = rows.stride()
    return tuple(sorted(range(rows.dim()), key=lambda d: (d != 0, -strides[d], d)))


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.contiguous().cpu().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _digest(parts: Sequence[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# Reading


def is_block_name(name: str) -> bool:
    """Say whether a block may have this name."""
    return name.endswith(SUFFIX) and is_digest(name.removesuffix(SUFFIX))


def listed(folder: Path) -> list[str]:
    """List the names in a folder, sorted; none when it is not there or may not be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def open_block(path: Path, about: About) -> Block:
    """Map a block, verified whole unless this process has done it before.

    Raises:
        NotABlockError: It is damaged, or of another set.
        OSError: It has gone, or cannot be read.
    """
    header = verify_block(path)
    if not header.belongs_to(about):
        raise NotABlockError(f"it belongs to another set: {header.line().decode().strip()}")
    return _mapped(path, header)


_verified: dict[Path, tuple[tuple[int, ...], Header]] = {}  # what this process has read whole


def verify_block(path: Path) -> Header:
    """Compare a file's digest with its name, once a process.

    Raises:
        NotABlockError: It is damaged.
        OSError: It has gone, or cannot be read.
    """
    stat = path.stat()
    stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    known = _verified.get(path)
    if known is None or known[0] != stamp:
        known = _verified[path] = (stamp, _read_whole(path))
    return known[1]


def _read_whole(path: Path) -> Header:
    # By reading, not through a map: where the disk fails, a map ends the process by SIGBUS.
    with open_file(path) as file:
        line = file.readline(_LINE_LIMIT)
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    if found != path.name.removesuffix(SUFFIX):
        raise NotABlockError(f"the sha256 of its bytes 0 to {size:,} is {found}, not its name")
    header = parse_header(line)
    end = header.places()[2]
    if size != end:
        raise NotABlockError(f"it has {size:,} bytes, its first line says {end:,}")
    return header


def read_header(path: Path) -> Header:
    """Read the first line of a block, unverified.

    Raises:
        NotABlockError: It is not one of a block.
        OSError: It has gone, or cannot be read.
    """
    with open_file(path) as file:
        return parse_header(file.readline(_LINE_LIMIT))


def open_file(path: Path) -> BufferedReader:
    """Open a file of the store; a pipe in its place is empty, and holds nobody up.

    Raises:
        OSError: It has gone, or cannot be read.
    """
    return open(path, "rb", opener=open_to_read)


def parse_header(line: bytes) -> Header:
    """Read a first line back.

    Raises:
        NotABlockError: It is not one of a block.
    """
    try:
        fields = json.loads(line)
        lists = {name: tuple(fields[name]) for name in ("shape", "order")}
        header = Header(**{**fields, **lists})
        sound = header.line() == line and _is_sound(header)
    except (ValueError, LookupError, TypeError, AssertionError, RecursionError):
        sound = False
    if not sound:
        raise NotABlockError("its first line is not that of a block")
    return header


def _is_sound(header: Header) -> bool:
    sizes = (header.rows, *header.shape)
    return (
        all(type(size) is int and size >= 0 for size in sizes)
        and sorted(header.order) == list(range(len(sizes)))
        and header.order[0] == 0
        and isinstance(header.seconds, int | float)
        and header.places()[2] > 0
    )


def _mapped(path: Path, header: Header) -> Block:
    keys_at, rows_at, end = header.places()
    whole = torch.empty(0, dtype=torch.uint8).set_(_storage(path, end))
    keys = whole[keys_at : keys_at + header.rows * KEY_BYTES].numpy().reshape(-1, KEY_BYTES)
    flat = whole[rows_at:].view(DTYPES[header.dtype])
    rows = in_memory_order(flat, (header.rows, *header.shape), header.order)
    return Block(keys, rows, bits_of(rows), header.order, header.seconds)


def in_memory_order(flat: Tensor, shape: Sequence[int], order: Sequence[int]) -> Tensor:
    """View flat memory as a tensor whose dimensions stand there in the given order."""
    inverse = [order.index(d) for d in range(len(order))]
    return flat.view([shape[d] for d in order]).permute(inverse)


def bits_of(tensor: Tensor) -> NDArray[np.generic]:
    """Share a tensor's memory with numpy, as integers of the same size."""
    bits: NDArray[np.generic] = tensor.view(_INTEGERS[tensor.element_size()]).numpy()
    return bits


def _storage(path: Path, size: int) -> torch.UntypedStorage:
    # Private, and no file stays open: thousands may be mapped, and deleted meanwhile.
    try:
        return torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)  # type: ignore[return-value]
    except RuntimeError as error:
        path.stat()  # it has gone: FileNotFoundError
        raise OSError(errno.ENOMEM, f"it cannot be mapped: {error}") from error
