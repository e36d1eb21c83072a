"""Damaged files, calls that fail, kills and power cuts: rows are right or missing, and it is told."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from durable_disks import CountingCalls, Killed, PowerLossCalls, replaced_calls, small_disk
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
from tlcompile.errors.features import CacheFullError, CacheNotWritableError
from tlcompile.store import feature_set
from tlcompile.store.about import ABOUT, About, about_bytes, read_about
from tlcompile.store.blocks import NotABlockError
from tlcompile.store.feature_set import FeatureSet
from tlcompile.store.store import Store

A, B, C = about("a"), about("b"), about("c")


# Damaged files; tests/reliability has them by the thousand


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
        features.mark_used()
        with features.lease(keys_of(range(8))):
            assert (features.locate(keys_of(range(8))) < 0).any()
        assert not features.refresh()
    told = [line.split("'")[1] for line in features.damaged]
    assert told == [str(path.with_name(ABOUT)), str(path)], "each is told once"
    assert all("left where it is" in line for line in features.damaged)
    assert path.exists()


def test_a_block_that_cannot_be_read_is_told_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, A, range(5))

    def fail(*_values: object) -> Any:
        raise OSError(errno.EIO, "a bad sector")

    monkeypatch.setattr("tlcompile.store.blocks.hashlib.file_digest", fail)
    features = read(tmp_path, A)
    assert features.locate(keys_of([0])).tolist() == [-1]
    assert not features.refresh()
    assert len(features.damaged) == 1, "told once"
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


def test_a_power_cut_at_any_call_leaves_whole_blocks_alone(tmp_path: Path) -> None:
    seen = []
    for number in itertools.count(1):
        cache = tmp_path / str(number)
        cache.mkdir()
        calls = PowerLossCalls(cache, number, None)
        calls.arm()
        with replaced_calls(calls), contextlib.suppress(Killed):
            fill(cache, A, range(3))
        calls.close_all()
        for early in itertools.product((False, True), repeat=2):
            after = tmp_path / f"{number}-{early}"
            calls.disk_after_power_loss(after, *early)
            features = read(after, A)
            assert not features.damaged
            seen.append(holds(features, range(3)))
        if calls.count < number:
            break
    assert set(seen) == {False, True}
    assert seen[-4:] == [True] * 4, "what was written is not lost"


def test_equal_pids_may_write_one_block_at_the_same_time(tmp_path: Path) -> None:
    """Two machines, or two containers; here twice in one process."""
    path = tmp_path / "block.rows"
    with durable.replacing(path) as first, durable.replacing(path) as second:
        first.write(b"the same")
        second.write(b"the same")
    assert path.read_bytes() == b"the same"
    assert os.listdir(tmp_path) == ["block.rows"]


@pytest.mark.parametrize(
    "lost", [FileNotFoundError(), NotABlockError("flipped"), OSError(5, "bad")]
)
def test_rows_that_cannot_be_read_back_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    """The rows of a run that goes on would be missing, and nobody would have said why."""

    def fail(*_values: object) -> Any:
        raise lost

    features = Store(tmp_path).open(A)
    monkeypatch.setattr(feature_set, "open_block", fail)
    with pytest.raises(CacheNotWritableError, match="read back"):
        features.write(keys_of(range(3)), rows_of(range(3), A), 1.0)


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
    with small_disk(tmp_path / "disk") as disk:
        of = about(shape=(1 << 18,))
        features = fill(disk, of, range(2))
        with pytest.raises(CacheFullError) as caught:
            features.write(keys_of(range(2, 18)), torch.zeros(16, 1 << 18), 1.0)
        assert caught.value.needed_bytes >= 16 << 20
        assert caught.value.free_bytes is not None
        assert caught.value.free_bytes <= 8 << 20
        assert holds(features, range(2))
        assert holds(read(disk, of), range(2))


@pytest.mark.parametrize("name", [ABOUT, "0" * 64 + ".rows"])
def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path: Path, name: str) -> None:
    fill(tmp_path, A, range(3))
    pipe = folder_of(tmp_path, A) / name
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    script = (
        "import sys; from pathlib import Path; from stored_rows import *;"
        "from tlcompile.store.store import Store; cache = Path(sys.argv[1]); store = Store(cache);"
        "store.sets(), store.verify(); assert holds(read(cache, about('a')), range(3))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(words, check=True, timeout=60, env=environment)
