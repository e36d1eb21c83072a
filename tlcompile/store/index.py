"""Find rows by their keys, in sorted numpy arrays: 48 bytes a row."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

KEY_BYTES: Final = 32
Keys = NDArray[np.uint8]  # (N, 32): one SHA-256 a row
RowNumbers = NDArray[np.int64]


class KeyIndex:
    """Row numbers by key; of equal keys any one."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        heads = _heads(keys)
        self.order = np.argsort(heads)
        self.heads = heads[self.order]

    def find(self, wanted: Keys) -> RowNumbers:
        """Return the row number of each key, -1 where there is none.

        Shape:
            in: (N, 32)   out: (N,)
        """
        found = np.full(len(wanted), -1, dtype=np.int64)
        heads = _heads(wanted)
        places = np.searchsorted(self.heads, heads)
        left = np.arange(len(wanted))
        while len(left):  # once, unless different keys begin with the same eight bytes
            left = left[places[left] < len(self.heads)]
            left = left[self.heads[places[left]] == heads[left]]
            rows = self.order[places[left]]
            same = (self.keys[rows] == wanted[left]).all(axis=1)
            found[left[same]] = rows[same]
            left = left[~same]
            places[left] += 1
        return found


def _heads(keys: Keys) -> NDArray[np.uint64]:
    heads: NDArray[np.uint64] = np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()
    return heads
