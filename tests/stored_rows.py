"""Rows to store, for tests of the store: each a function of its number, so that any can be checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tlcompile.store import blocks
from tlcompile.store.about import DTYPES
from tlcompile.store.store import About, FeatureSet, Keys, Store

SHAPE = (6, 5, 4)


def about(name: str = "a", shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> About:
    key = hashlib.sha256(name.encode()).hexdigest()
    return About(key, f"layer_{name}", shape, dtype, {"base": "resnet18", "of": name})


def keys_of(numbers: Iterable[int]) -> Keys:
    digests = [hashlib.sha256(b"%d" % number).digest() for number in numbers]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def rows_of(numbers: Iterable[int], of: About) -> Tensor:
    """Make rows; every bit pattern is a value, NaN too."""
    parts = []
    for number in numbers:
        seed = hashlib.sha256(f"{of.key} {number}".encode()).digest()
        bits = bytearray(np.random.default_rng(list(seed)).bytes(of.row_bytes))
        parts.append(torch.frombuffer(bits, dtype=torch.uint8))
    flat = torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)
    if of.dtype == "bool":
        flat = flat % 2  # other bytes are no values of a bool
    return flat.view(DTYPES[of.dtype]).view(-1, *of.shape)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Compare bit by bit: a NaN equals itself."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return np.array_equal(blocks.bits_of(first), blocks.bits_of(second))


def fill(cache: Path, of: About, *parts: Iterable[int], seconds: float = 1.0) -> FeatureSet:
    """Store one block for each part."""
    features = Store(cache).open(of)
    for part in map(list, parts):
        features.write(keys_of(part), rows_of(part, of), seconds)
    return features


def read(cache: Path, of: About) -> FeatureSet:
    """Open a set as a new process does: nothing has been verified."""
    blocks._verified.clear()
    features = Store(cache).open(of)
    features.refresh()
    return features


def holds(features: FeatureSet, numbers: Iterable[int]) -> bool:
    """Say whether all these rows are there, to the bit."""
    wanted = list(numbers)
    places = features.locate(keys_of(wanted))
    rows = rows_of(wanted, features.about)
    return bool((places >= 0).all()) and same_bits(features.gather(places), rows)


def folder_of(cache: Path, of: About) -> Path:
    return Store(cache).root / of.key[:2] / of.key


def block_files(cache: Path, of: About) -> list[Path]:
    return sorted(folder_of(cache, of).glob("*.rows"))


def spoil(path: Path) -> bytes:
    """Flip the last bit of a file; return what it then is."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return bytes(data)
