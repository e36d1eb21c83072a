"""A cache that cannot be made is told as such, and not as a disk without room."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_rows import about, keys_of

from tlcompile.errors.features import CacheNotWritableError
from tlcompile.features.room import make_room
from tlcompile.store.store import Store


def test_a_cache_where_a_file_stands_is_no_lack_of_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = Store(tmp_path / "file" / "cache")
    with pytest.raises(CacheNotWritableError) as caught:
        make_room(store, [(store.open(about()), keys_of([1, 2]))], budget=10**9)
    assert "file" in str(caught.value)
    assert "run.cache=FOLDER" in caught.value.fix()
    assert (tmp_path / "file").read_text() == "mine"
