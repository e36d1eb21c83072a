"""Sets of rows that processes share: what one wrote, another reads, to the bit, or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from durable_disks import CountingCalls, Killed
from stored_rows import (
    about,
    block_files,
    fill,
    folder_of,
    holds,
    keys_of,
    read,
    rows_of,
    same_bits,
)

from tlcompile import durable
from tlcompile.durable import leftovers, system
from tlcompile.errors.features import CacheFullError, CacheNotWritableError
from tlcompile.errors.run import RunError
from tlcompile.features import blocks, feature_set, prefix
from tlcompile.features.about import ABOUT, About, about_bytes, read_about
from tlcompile.features.feature_set import FeatureSet
from tlcompile.features.lease import LOCK
from tlcompile.features.store import Store

A, B, C = about("a"), about("b"), about("c")


@contextlib.contextmanager
def replaced_calls(calls: system.SystemCalls) -> Iterator[None]:
    before, system.calls = system.calls, calls
    try:
        yield
    finally:
        system.calls = before


# Reading what was written


def test_nothing_is_on_the_disk_before_the_first_write(tmp_path: Path) -> None:
    features = Store(tmp_path / "cache").open(A)
    assert not features.refresh()
    assert features.locate(keys_of(range(3))).tolist() == [-1] * 3
    assert features.seconds_a_row == 0
    features.touch()
    assert Store(tmp_path / "cache").sets() == []
    assert Store(tmp_path / "cache").num_bytes() == 0
    assert Store(tmp_path / "cache").collect(0) == []
    assert Store(tmp_path / "cache").verify() == []
    features.write(keys_of([]), rows_of([], A), 1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
def test_rows_come_back_from_several_blocks_in_any_order(tmp_path: Path, dtype: str) -> None:
    of = about(dtype=dtype)
    fill(tmp_path, of, range(10), range(10, 11), range(11, 40))
    features = read(tmp_path, of)
    for wanted in (range(40), [39, 0, 10, 10, 3], [4, 2], [10], []):
        assert holds(features, wanted)
    assert features.locate(keys_of([40, 3, 41]))[[0, 2]].tolist() == [-1, -1]
    assert not features.damaged


def test_the_writer_finds_its_own_rows_at_once(tmp_path: Path) -> None:
    features = fill(tmp_path, A, range(5))
    assert holds(features, range(5))
    features.write(keys_of(range(5, 9)), rows_of(range(5, 9), A), 1.0)
    assert holds(features, [8, 0])
    assert not features.refresh(), "they are its own"


def test_rows_of_another_process_come_with_a_refresh(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path).open(A), Store(tmp_path).open(A)
    theirs.write(keys_of(range(3)), rows_of(range(3), A), 1.0)
    assert ours.locate(keys_of([0])).tolist() == [-1]
    assert ours.refresh()
    assert holds(ours, range(3))
    assert not ours.refresh()


def test_rows_that_two_processes_computed_are_fine(tmp_path: Path) -> None:
    fill(tmp_path, A, range(6), range(3, 9), [4, 4, 4], range(6))
    features = read(tmp_path, A)
    assert holds(features, range(9))
    assert len(block_files(tmp_path, A)) == 3, "the same block is the same file"


def test_writing_the_same_block_again_adds_nothing(tmp_path: Path) -> None:
    features = fill(tmp_path, A, range(6), range(6))
    assert len(features._blocks) == 1
    assert holds(features, range(6))


ORDERS = [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (0, 3, 2, 1)]


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 1, 1), (1, 5, 4)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("parts", [1, 3])
def test_gathered_rows_lie_in_memory_as_kept_rows_do(
    tmp_path: Path, shape: tuple[int, ...], order: tuple[int, ...], parts: int
) -> None:
    of = about(shape=shape)
    inverse = [order.index(d) for d in range(4)]
    rows = rows_of(range(9), of).permute(order).contiguous().permute(inverse)
    features = Store(tmp_path).open(of)
    for part in np.array_split(np.arange(9), parts):
        features.write(keys_of(part.tolist()), rows[part[0] : part[-1] + 1], 1.0)
    wanted = [8, 1, 5, 0]
    gathered = features.gather(features.locate(keys_of(wanted)))
    (kept,) = prefix.gather((rows,), wanted)
    assert same_bits(gathered, kept)
    assert gathered.stride() == kept.stride()


def test_blocks_may_differ_in_the_order_of_dimensions(tmp_path: Path) -> None:
    features = Store(tmp_path).open(A)
    for number, order in enumerate(ORDERS):
        inverse = [order.index(d) for d in range(4)]
        rows = rows_of([2 * number, 2 * number + 1], A)
        rows = rows.permute(order).contiguous().permute(inverse)
        features.write(keys_of([2 * number, 2 * number + 1]), rows, 1.0)
    assert holds(features, [7, 0, 2, 5, 1, 3])


def test_gathered_rows_are_memory_of_their_own(tmp_path: Path) -> None:
    features = fill(tmp_path, A, range(5), range(5, 9))
    for wanted in ([1], [1, 6]):
        features.gather(features.locate(keys_of(wanted))).zero_()
    assert holds(features, range(9))


def test_a_missing_row_cannot_be_read(tmp_path: Path) -> None:
    features = fill(tmp_path, A, range(5))
    for numbers in ([-1], [0, -1], [5]):
        with pytest.raises((AssertionError, IndexError)):
            features.gather(numbers)


def test_seconds_are_kept_with_the_rows(tmp_path: Path) -> None:
    fill(tmp_path, A, range(10), seconds=3.0)
    fill(tmp_path, A, range(10, 40), seconds=5.0)
    assert read(tmp_path, A).seconds_a_row == 8.0 / 40


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def read_all(cache: Path, of: About, count: int) -> FeatureSet:
    features = read(cache, of)
    for start in range(0, count, 10):
        assert features.gather(range(start, start + 10)).sum() == 10 * (1 << 16)
    return features


def test_mapped_rows_take_no_memory_of_ours(tmp_path: Path) -> None:
    of = about(shape=(1 << 16,))
    rows = torch.ones(50, 1 << 16)
    writer = Store(tmp_path).open(of)
    for start in range(0, 200, 50):
        writer.write(keys_of(range(start, start + 50)), rows, 1.0)
    del writer, rows
    read_all(tmp_path, of, 200)  # the allocator has then all that it will need
    before = anonymous_bytes()
    features = read_all(tmp_path, of, 200)
    assert anonymous_bytes() - before < 13 << 20, "52 MB of rows were read, 2.6 MB at a time"
    assert len(features.locate(keys_of([0]))) == 1, "and are still there"


# Sets that go while they are used


def test_an_evicted_set_can_still_be_read_and_is_written_again(tmp_path: Path) -> None:
    features = fill(tmp_path, A, range(5), range(5, 8))
    assert [one.about for one in Store(tmp_path).collect(0)] == [A]
    assert not folder_of(tmp_path, A).exists()
    assert not features.refresh()
    assert holds(features, range(8))
    features.write(keys_of([8]), rows_of([8], A), 1.0)
    assert holds(features, range(9))
    assert holds(read(tmp_path, A), [8])
    assert not features.damaged


def test_a_block_that_goes_before_it_is_mapped_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, A, range(5), range(5, 8))

    names = blocks.listed(folder_of(tmp_path, A))
    monkeypatch.setattr(feature_set, "listed", lambda folder: ["0" * 64 + ".rows", *names])
    features = read(tmp_path, A)
    assert holds(features, range(8))
    assert not features.damaged


@pytest.mark.parametrize("number", range(1, 30))
def test_a_set_that_is_evicted_at_any_call_of_a_write_is_written_again(
    tmp_path: Path, number: int
) -> None:
    class Evicting(CountingCalls):
        def _step(self) -> None:
            self.count += 1
            if self.count == self.number:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(folder_of(tmp_path, A), tmp_path / "evicted")

    fill(tmp_path, A, range(3))
    calls = Evicting(number, Killed())
    with replaced_calls(calls):
        features = fill(tmp_path, A, range(3, 8))
    assert holds(features, range(3, 8)) or not folder_of(tmp_path, A).exists()
    assert not features.damaged
    assert calls.count > 5


# Damage; tests/reliability has it by the thousand


def spoil(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return bytes(data)


def test_a_damaged_block_is_put_aside_told_once_and_computed_again(tmp_path: Path) -> None:
    fill(tmp_path, A, range(5), range(5, 8))
    path = block_files(tmp_path, A)[0]
    data = spoil(path)
    features = read(tmp_path, A)
    assert len(features.damaged) == 1
    assert str(path) in features.damaged[0]
    assert "sha256" in features.damaged[0]
    assert not features.refresh()
    assert len(features.damaged) == 1, "told once"
    (aside,) = Store(tmp_path).quarantined()
    assert str(aside) in features.damaged[0]
    assert aside.read_bytes() == data, "kept as it was"
    missing = [n for n in range(8) if features.locate(keys_of([n]))[0] < 0]
    assert missing in (list(range(5)), list(range(5, 8)))
    features.write(keys_of(missing), rows_of(missing, A), 1.0)
    assert holds(features, range(8))
    again = read(tmp_path, A)
    assert holds(again, range(8))
    assert not again.damaged


def test_a_block_of_another_set_is_put_aside(tmp_path: Path) -> None:
    fill(tmp_path, A, range(5))
    fill(tmp_path, B, range(5))
    (theirs,) = block_files(tmp_path, B)
    (folder_of(tmp_path, A) / theirs.name).write_bytes(theirs.read_bytes())
    features = read(tmp_path, A)
    assert "another set" in features.damaged[0]
    assert B.key in features.damaged[0]
    assert holds(features, range(5))


def test_damage_in_a_cache_that_is_only_read_is_told_and_left(tmp_path: Path) -> None:
    class ReadOnly(CountingCalls):
        def _step(self) -> None:
            raise OSError(errno.EROFS, "read-only")

    fill(tmp_path, A, range(5), range(5, 8))
    path = block_files(tmp_path, A)[0]
    spoil(path)
    (folder_of(tmp_path, A) / ABOUT).write_bytes(b"{}")
    with replaced_calls(ReadOnly(0, Killed())):
        features = read(tmp_path, A)
        features.touch()
        with features.lease(keys_of(range(8))):
            assert (features.locate(keys_of(range(8))) < 0).any()
        assert not features.refresh()
    assert [line.split("'")[1] for line in features.damaged[-1:]] == [str(path)]
    assert "left where it is" in features.damaged[-1]
    assert path.exists()


def test_a_block_that_cannot_be_read_is_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, A, range(5))

    def fail(*_values: object) -> Any:
        raise OSError(errno.EIO, "a bad sector")

    monkeypatch.setattr("tlcompile.features.blocks.hashlib.file_digest", fail)
    features = read(tmp_path, A)
    assert features.locate(keys_of([0])).tolist() == [-1]
    assert "a bad sector" in features.damaged[0]
    assert len(block_files(tmp_path, A)) == 1
    assert "a bad sector" in Store(tmp_path).verify()[0].reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 9999,
        about_bytes(B),
        about_bytes(A)[:-2],
        b"\xff",
        b'{"format": 1}',
    ],
)
def test_an_about_that_is_something_else_is_put_aside_and_written_anew(
    tmp_path: Path, data: bytes
) -> None:
    fill(tmp_path, A, range(5))
    path = folder_of(tmp_path, A) / ABOUT
    path.write_bytes(data)
    assert [bad.path for bad in Store(tmp_path).verify()] == [path]
    features = read(tmp_path, A)
    assert str(path) in features.damaged[0]
    assert [aside.read_bytes() for aside in Store(tmp_path).quarantined()] == [data]
    assert read_about(path.read_bytes()) == A
    assert holds(features, range(5))
    assert not read(tmp_path, A).damaged


def test_an_about_of_a_later_format_is_not_read() -> None:
    assert read_about(about_bytes(A)) == A
    assert read_about(about_bytes(A).replace(b'"format": 1', b'"format": 2')) is None


def test_an_about_keeps_what_the_key_was_made_of() -> None:
    of = About(A.key, "x", (3,), "uint8", {"n": 1, "mean": [0.485, 1e-7], "deep": {"a": None}})
    again = read_about(about_bytes(of))
    assert again is not None
    assert again.ingredients == of.ingredients


# Calls that fail


def each_call(tmp_path: Path, fail: BaseException) -> Iterator[tuple[Path, FeatureSet, object]]:
    """Write a second block again and again, failing the first call, the second ..., to the last."""
    for number in range(1, 100):
        cache = tmp_path / str(number)
        fill(cache, A, range(3))
        (folder_of(cache, A) / ABOUT).unlink()
        features = read(cache, A)
        calls, raised = CountingCalls(number, fail), None
        with replaced_calls(calls):
            try:
                features.write(keys_of(range(3, 8)), rows_of(range(3, 8), A), 1.0)
            except (Exception, Killed) as error:
                raised = error
        calls.close_all()
        if calls.count < number:
            assert number > 10, "the table of calls was hardly used"
            return
        yield cache, features, raised
    pytest.fail("it never ran to its end")


ERRORS = {
    errno.ENOSPC: CacheFullError,
    errno.EACCES: CacheNotWritableError,
    errno.EIO: CacheNotWritableError,
}


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_any_call_that_fails_is_one_typed_error_and_loses_nothing(
    tmp_path: Path, code: int
) -> None:
    for cache, features, raised in each_call(tmp_path, OSError(code, os.strerror(code))):
        assert type(raised) is ERRORS[code]
        assert str(cache) in str(raised)
        if isinstance(raised, CacheFullError):
            assert raised.needed_bytes >= 5 * A.row_bytes
            assert raised.free_bytes
        assert holds(features, range(3))
        again = read(cache, A)
        assert holds(again, range(3))
        assert not again.damaged
        left = [name for name in os.listdir(folder_of(cache, A)) if name.startswith(".")]
        assert not left
        features.write(keys_of(range(3, 8)), rows_of(range(3, 8), A), 1.0)
        assert holds(features, range(8)), "the disk works again"


def test_a_kill_at_any_call_leaves_whole_blocks_alone(tmp_path: Path) -> None:
    seen = set()
    for cache, _, raised in each_call(tmp_path, Killed()):
        assert isinstance(raised, Killed)
        features = read(cache, A)
        assert holds(features, range(3))
        seen.add(holds(features, range(3, 8)))
        assert not features.damaged
        with features.lease(keys_of(range(9))):
            left = [name for name in os.listdir(folder_of(cache, A)) if name.startswith(".")]
            assert not left, "what the dead left is swept"
    assert seen == {False, True}


def test_a_cache_that_is_a_file_is_a_typed_error(tmp_path: Path) -> None:
    for cache in (tmp_path / "file", tmp_path / "file" / "inside"):
        (tmp_path / "file").write_bytes(b"")
        features = Store(cache).open(A)
        with features.lease(keys_of(range(3))), pytest.raises(CacheNotWritableError) as caught:
            features.write(keys_of(range(3)), rows_of(range(3), A), 1.0)
        assert f"'{cache}'" in str(caught.value)
        assert "run.cache=" in caught.value.fix()
        assert Store(cache).sets() == []


def test_a_real_full_disk_is_named_with_bytes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no tmpfs here: {error}")
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.strip()}")
    try:
        of = about(shape=(1 << 18,))
        features = fill(disk, of, range(2))
        with pytest.raises(CacheFullError) as caught:
            features.write(keys_of(range(2, 18)), torch.zeros(16, 1 << 18), 1.0)
        assert caught.value.needed_bytes >= 16 << 20
        assert caught.value.free_bytes is not None
        assert caught.value.free_bytes <= 8 << 20
        assert holds(features, range(2))
        assert holds(read(disk, of), range(2))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # still mapped


# What people see, and what goes


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
    read(tmp_path, A).touch()
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
        features.touch()
        Store(tmp_path).collect(0)
    assert not list(tmp_path.iterdir())


def test_durable_removes_a_folder_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    durable.remove_at_once(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError):
        durable.remove_at_once(tmp_path / "a")
