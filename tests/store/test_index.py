"""Keys are found as a dict would find them, in a few megabytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from stored_rows import keys_of

from tlcompile.store.index import KeyIndex, Keys

ALIKE = st.sampled_from([bytes(32), bytes(31) + b"\1", bytes(8) + b"\1" * 24, b"\xff" * 32])
DIGESTS = st.lists(ALIKE | st.binary(min_size=32, max_size=32), max_size=30)


def array(digests: list[bytes]) -> Keys:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


@given(DIGESTS, DIGESTS)
def test_it_finds_what_a_dict_finds(stored: list[bytes], others: list[bytes]) -> None:
    wanted = others + stored
    found = KeyIndex(array(stored)).find(array(wanted))
    for key, row in zip(wanted, found.tolist(), strict=True):
        assert stored[row] == key if key in stored else row == -1
    assert found.dtype == np.int64


def test_a_row_takes_less_than_fifty_bytes() -> None:
    index = KeyIndex(keys_of(range(1000)))
    assert (index.keys.nbytes + index.heads.nbytes + index.order.nbytes) / 1000 < 50
