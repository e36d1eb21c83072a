"""Sets of rows that processes share: what one wrote, another reads, to the bit, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
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
    same_bits,
)

from tlcompile.features import prefix
from tlcompile.store import blocks, feature_set
from tlcompile.store.about import About
from tlcompile.store.blocks import Block
from tlcompile.store.store import Store

A, B, C = about("a"), about("b"), about("c")


# Reading what was written


def test_nothing_is_on_the_disk_before_the_first_write(tmp_path: Path) -> None:
    features = Store(tmp_path / "cache").open(A)
    assert not features.refresh()
    assert features.locate(keys_of(range(3))).tolist() == [-1] * 3
    assert features.seconds_a_row == 0
    features.mark_used()
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


def map_at(address: int) -> dict[str, str]:
    """Return what the system tells of the memory map that holds an address."""
    is_it, found = False, {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            is_it = start <= address < end
            found |= {"access": rest[0], "path": rest[-1]} if is_it else {}
        elif is_it:
            found[first] = rest[0]
    return found


def test_rows_are_the_files_memory_and_none_of_ours(tmp_path: Path) -> None:
    fill(tmp_path, A, range(50), range(50, 99))
    features = read(tmp_path, A)
    assert holds(features, range(99))
    assert len(features._blocks) == 2
    for name, block in features._blocks.items():
        told = map_at(block.rows.data_ptr())
        assert told["path"].endswith(name)
        assert told["access"].endswith("p"), "private"
        assert told["Anonymous:"] == "0"
        assert int(told["Rss:"]) > 0
    assert ".rows" not in map_at(features.gather([0]).data_ptr())["path"]


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
    assert holds(features, range(3, 8))
    assert not features.damaged
    assert calls.count > 5


def test_rows_that_are_evicted_before_they_are_mapped_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set is not ours alone where locks do not work."""
    evictions = [2]

    def evicted_first(path: Path, of: About) -> Block:
        if evictions[0]:
            evictions[0] -= 1
            assert Store(tmp_path).collect(0)
        return open_block(path, of)

    open_block = feature_set.open_block
    monkeypatch.setattr(feature_set, "open_block", evicted_first)
    features = fill(tmp_path, A, range(3))
    assert not evictions[0]
    assert holds(features, range(3))
