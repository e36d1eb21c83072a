"""A run's own store: features of weights that it has trained itself go with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_rows import about, block_files, holds, keys_of, rows_of

from tlcompile.durable import system
from tlcompile.features.own import own_store
from tlcompile.store.store import Store

A = about()


def put(store: Store) -> None:
    store.open(A).write(keys_of(range(4)), rows_of(range(4), A), 1.0)


def test_rows_go_with_the_block_and_mapped_ones_stay_readable(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    with own_store(tmp_path) as store:
        put(store)
        features = store.open(A)
        features.refresh()
        assert block_files(store.cache, A)
        assert tmp_path in store.cache.parents
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert holds(features, range(4))


def stopped(folder: Path) -> None:
    with own_store(folder) as store:
        put(store)
        raise KeyboardInterrupt


def test_rows_go_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_stores_nothing_leaves_nothing(tmp_path: Path) -> None:
    with own_store(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_first(tmp_path: Path) -> None:
    with own_store(tmp_path) as store:
        place = store.cache
    put(Store(place))  # as a kill leaves it
    (place / "features" / ".block.rows.tmp.host.1.0123456789abcdef").write_bytes(b"half")
    with own_store(tmp_path) as store:
        assert not store.cache.exists()
        assert store.sets() == []


class Stuck(system.SystemCalls):
    def unlink(self, path: Path) -> None:
        raise PermissionError


def test_a_folder_that_cannot_be_removed_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_store(tmp_path) as store:
        put(store)
        monkeypatch.setattr(system, "calls", Stuck())
    monkeypatch.undo()
    with own_store(tmp_path) as store:
        assert not store.cache.exists()
