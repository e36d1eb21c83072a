"""What people see of the store, and what goes when it is too large."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from durable_disks import CountingCalls, Killed, replaced_calls
from stored_rows import (
    about,
    block_files,
    fill,
    folder_of,
    holds,
    keys_of,
    read,
    rows_of,
    spoil,
)

from tlcompile import durable
from tlcompile.durable import leftovers, system
from tlcompile.errors.features import CacheNotWritableError
from tlcompile.errors.run import RunError, WriteFailedError
from tlcompile.store.about import ABOUT
from tlcompile.store.lease import LOCK
from tlcompile.store.store import Store

A, B, C = about("a"), about("b"), about("c")


def test_sets_are_listed_with_what_they_hold(tmp_path: Path) -> None:
    fill(tmp_path, A, range(10), range(10, 14), seconds=2.0)
    fill(tmp_path, B, range(3), seconds=7.0)
    first, second = Store(tmp_path).sets()
    assert (first.about, first.rows, first.blocks, first.seconds) == (A, 14, 2, 4.0)
    assert (second.about, second.rows, second.blocks, second.seconds) == (B, 3, 1, 7.0)
    assert first.about.ingredients == A.ingredients
    files = [path for path in folder_of(tmp_path, A).iterdir() if path.is_file()]
    assert first.num_bytes == sum(path.stat().st_size for path in files)
    assert Store(tmp_path).num_bytes() == first.num_bytes + second.num_bytes
    assert abs(first.last_used - time.time()) < 100


def test_a_set_without_its_about_is_listed_by_its_key(tmp_path: Path) -> None:
    fill(tmp_path, A, range(10))
    (folder_of(tmp_path, A) / ABOUT).write_bytes(b"")
    (one,) = Store(tmp_path).sets()
    assert (one.about.key, one.about.vertex, one.rows) == (A.key, "unknown", 10)


def test_verify_names_every_bad_file_and_moves_none(tmp_path: Path) -> None:
    fill(tmp_path, A, range(3), range(3, 6), range(6, 9))
    fill(tmp_path, B, range(3))
    assert Store(tmp_path).verify() == []
    flipped, foreign, _ = block_files(tmp_path, A)
    spoil(flipped)
    (theirs,) = block_files(tmp_path, B)
    foreign.unlink()
    foreign = folder_of(tmp_path, A) / theirs.name
    foreign.write_bytes(theirs.read_bytes())
    stranger = folder_of(tmp_path, B) / "notes.txt"
    stranger.write_bytes(b"")
    found = {bad.path: bad.reason for bad in Store(tmp_path).verify()}
    assert found.keys() == {flipped, foreign, stranger}
    assert "sha256" in found[flipped]
    assert B.key in found[foreign]
    assert "none of the store's" in found[stranger]
    assert all(path.exists() for path in found)


def test_the_least_recently_used_sets_go_first(tmp_path: Path) -> None:
    for of in (A, B, C):
        fill(tmp_path, of, range(10))
    for age, of in enumerate((B, C, A)):
        os.utime(folder_of(tmp_path, of) / ABOUT, (1e9 - age, 1e9 - age))
    one = Store(tmp_path).sets()[0].num_bytes
    read(tmp_path, A).mark_used()
    assert [gone.about for gone in Store(tmp_path).collect(3 * one)] == []
    assert [gone.about for gone in Store(tmp_path).collect(2 * one)] == [C]
    assert [gone.about for gone in Store(tmp_path).collect(one)] == [B]
    assert holds(read(tmp_path, A), range(10))
    assert [gone.about for gone in Store(tmp_path).collect(0)] == [A]
    assert not list(Store(tmp_path).root.glob("*/*"))


def test_a_set_whose_lease_is_held_stays(tmp_path: Path) -> None:
    fill(tmp_path, A, range(3))
    fill(tmp_path, B, range(3))
    with Store(tmp_path).open(A).lease(keys_of(range(5))):
        assert [gone.about for gone in Store(tmp_path).collect(0)] == [B]
    assert [gone.about for gone in Store(tmp_path).collect(0)] == [A]


def test_eviction_does_without_locks_where_there_are_none(tmp_path: Path) -> None:
    class NoLocks(system.SystemCalls):
        def flock(self, fd: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

    fill(tmp_path, A, range(3))
    with replaced_calls(NoLocks()):
        assert len(Store(tmp_path).collect(0)) == 1


def test_what_the_dead_left_is_swept_and_other_formats_stay(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    fill(tmp_path, A, range(3))
    dead = f".tmp.{leftovers.HOST}.{process.pid}.{'0' * 16}"
    (folder_of(tmp_path, A) / f".{'1' * 64}.rows{dead}").write_bytes(b"half")
    evicted = folder_of(tmp_path, B).parent / f".{B.key}{dead}"
    evicted.mkdir(parents=True)
    (evicted / "x.rows").write_bytes(b"half")
    alone = folder_of(tmp_path, C) / LOCK
    alone.parent.mkdir(parents=True)
    alone.write_bytes(b"")
    later = tmp_path / "features" / "v2" / "ab" / A.key / "x.rows"
    later.parent.mkdir(parents=True)
    later.write_bytes(b"1")
    assert Store(tmp_path).collect(10**9) == []
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    kept = [*block_files(tmp_path, A), folder_of(tmp_path, A) / ABOUT, later]
    assert [path for path in files if path.name != LOCK] == sorted(kept)
    assert not alone.parent.exists()


def eviction_states(
    tmp_path: Path, fail: BaseException
) -> Iterator[tuple[Path, bool, BaseException | None]]:
    for number in itertools.count(1):
        cache = tmp_path / str(number)
        fill(cache, A, range(3), range(3, 6))
        calls, raised = CountingCalls(number, fail), None
        with replaced_calls(calls):
            try:
                Store(cache).collect(0)
            except (RunError, Killed) as error:
                raised = error
        calls.close_all()
        if calls.count < number:
            assert number > 8, "the table of calls was hardly used"
            return
        yield cache, folder_of(cache, A).exists(), raised


@pytest.mark.parametrize("fail", [Killed(), OSError(errno.EIO, "bad")], ids=["kill", "EIO"])
def test_an_eviction_that_stops_at_any_call_leaves_a_whole_set_or_none(
    tmp_path: Path, fail: BaseException
) -> None:
    seen = set()
    for cache, exists, _ in eviction_states(tmp_path, fail):
        features = read(cache, A)
        assert holds(features, range(6)) is exists
        assert not features.damaged
        assert [one.rows for one in Store(cache).sets()] == [6] * exists
        seen.add(exists)
        Store(cache).collect(0)
        assert not list(Store(cache).root.glob("??/*")), "the next one ends it"
    assert seen == {False, True}


def test_every_call_goes_through_the_table(tmp_path: Path) -> None:
    """With a table that does nothing, nothing is written: so its tests see every call."""

    class Nothing(CountingCalls):
        def _step(self) -> None:
            raise OSError(errno.EROFS, "nothing is written")

    with replaced_calls(Nothing(0, Killed())):
        features = Store(tmp_path).open(A)
        with features.lease(keys_of(range(3))), pytest.raises(CacheNotWritableError):
            features.write(keys_of(range(3)), rows_of(range(3), A), 1.0)
        features.mark_used()
        Store(tmp_path).collect(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("late", [1, 3, 99])
def test_a_file_that_comes_into_a_folder_while_it_goes_is_removed_too(
    tmp_path: Path, late: int
) -> None:
    """Whoever looked the folder up before it was renamed writes into it after."""

    class Late(system.SystemCalls):
        left = late

        def rmdir(self, path: Path) -> None:
            if self.left:
                self.left -= 1
                (path / "late").write_bytes(b"1")
            super().rmdir(path)

    fill(tmp_path, A, range(3))
    with replaced_calls(Late()):
        if late < 99:
            assert len(Store(tmp_path).collect(0)) == 1
        else:
            with pytest.raises(WriteFailedError, match="ENOTEMPTY"):
                Store(tmp_path).collect(0)
    assert Store(tmp_path).collect(0) == []
    assert not list(Store(tmp_path).root.glob("??/*"))


def test_durable_removes_a_folder_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    durable.remove_at_once(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError):
        durable.remove_at_once(tmp_path / "a")
