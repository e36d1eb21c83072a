"""Computing what the store lacks: once, in passes of one size, block by block, kept on the way."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from stored_rows import about, block_files, fill, holds, keys_of, read, rows_of
from torch import Tensor

from tlcompile.durable import system
from tlcompile.errors.data import ImageChangedError
from tlcompile.errors.features import CacheFullError
from tlcompile.features import extract as module
from tlcompile.features.extract import Report, extract, missing
from tlcompile.features.prefix import Rows
from tlcompile.store.store import About, FeatureSet, Store

Pairs = Sequence[tuple[int, int]]
A, B = about("a"), about("b", (3,))


class Machine:
    """Loads numbers as images and computes their rows; notes every load and every pass.

    Row number `n` is of view `n % views` of sample `n // views`.
    """

    def __init__(self, *of: About, views: int = 1) -> None:
        self.of, self.views = of, views
        self.loads: list[list[tuple[int, int]]] = []
        self.passes: list[list[int]] = []

    def load(self, pairs: Pairs) -> Tensor:
        self.loads.append(list(pairs))
        return torch.tensor([[float(sample * self.views + view)] for sample, view in pairs])

    def compute(self, images: Tensor) -> Rows:
        numbers = [int(number) for number in images[:, 0]]
        self.passes.append(numbers)
        return tuple(rows_of(numbers, of) for of in self.of)


def run(
    machine: Machine,
    sets: Sequence[FeatureSet],
    numbers: Sequence[int],
    size: int = 4,
    loaded: Callable[[], None] = lambda: None,
) -> Report:
    keys = keys_of(numbers)
    return extract(
        sets,
        keys,
        machine.load,
        machine.compute,
        chunk_size=size,
        views=machine.views,
        loaded=loaded,
    )


def opened(cache: Path, *of: About) -> list[FeatureSet]:
    return [Store(cache).open(one) for one in of]


def test_what_is_missing(tmp_path: Path) -> None:
    sets = [fill(tmp_path, A, range(4)), fill(tmp_path, B, range(2, 6))]
    assert missing(sets, keys_of([7, 3, 0, 2, 5, 7, 6, 0])).tolist() == [0, 2, 4, 6]
    assert missing(sets, keys_of([2, 3, 2])).tolist() == []
    assert missing([], keys_of([1, 2])).tolist() == []


def test_only_what_is_missing_is_computed_in_passes_of_one_size(tmp_path: Path) -> None:
    fill(tmp_path, A, [1, 5])
    machine = Machine(A)
    report = run(machine, opened(tmp_path, A), range(12))
    assert machine.passes == [[0, 2, 3, 4], [6, 7, 8, 9], [10, 11]]
    assert holds(read(tmp_path, A), range(12))
    assert (report.rows, report.hits, report.misses) == (12, 2, 10)
    assert report.num_bytes == 12 * A.row_bytes


def test_equal_samples_are_computed_once(tmp_path: Path) -> None:
    machine = Machine(A)
    keys = keys_of([0, 1, 0, 0, 2, 1])
    sets = opened(tmp_path, A)
    report = extract(sets, keys, machine.load, machine.compute, chunk_size=4)
    assert machine.loads == [[(0, 0), (1, 0), (4, 0)]]
    assert (report.hits, report.misses) == (3, 3)
    assert sum(one.rows for one in Store(tmp_path).sets()) == 3


def test_of_several_sets_each_gets_what_it_lacks(tmp_path: Path) -> None:
    fill(tmp_path, A, range(3))
    fill(tmp_path, B, range(2, 5))
    machine = Machine(A, B)
    run(machine, opened(tmp_path, A, B), range(6))
    assert machine.passes == [[0, 1, 3, 4], [5]]
    for of in (A, B):
        assert holds(read(tmp_path, of), range(6))
    assert [one.rows for one in Store(tmp_path).sets()] == [6, 6], "no row is stored twice"


def test_the_order_of_dimensions_in_memory_is_kept(tmp_path: Path) -> None:
    machine, sets = Machine(A), opened(tmp_path, A)

    def compute(images: Tensor) -> Rows:
        rows = machine.compute(images)[0]
        return (rows.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),)

    extract(sets, keys_of(range(6)), machine.load, compute, chunk_size=4)
    features = read(tmp_path, A)
    assert holds(features, range(6))
    assert not features.gather([0, 1]).is_contiguous()


def blocks_of(cache: Path, monkeypatch: pytest.MonkeyPatch, **limits: float) -> int:
    for name, value in limits.items():
        monkeypatch.setattr(module, name, value)
    run(Machine(A), opened(cache, A), range(16))
    assert holds(read(cache, A), range(16))
    return len(block_files(cache, A))


def test_a_block_is_committed_when_it_is_large_or_took_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert blocks_of(tmp_path / "one", monkeypatch) == 1
    small = {"BLOCK_BYTES": 8 * A.row_bytes}
    assert blocks_of(tmp_path / "large", monkeypatch, **small, BLOCK_ROWS=1) == 2
    assert blocks_of(tmp_path / "rows", monkeypatch, **small, BLOCK_ROWS=16) == 1
    assert blocks_of(tmp_path / "long", monkeypatch, BLOCK_SECONDS=0.0) == 4


@pytest.mark.parametrize("views", [2, 3, 5])
def test_views_are_loaded_together_and_passes_have_one_size(tmp_path: Path, views: int) -> None:
    fill(tmp_path, A, [1])
    machine = Machine(A, views=views)
    run(machine, opened(tmp_path, A), range(7 * views))
    samples = [sorted({sample for sample, _ in load}) for load in machine.loads]
    assert list(chain.from_iterable(samples)) == list(range(7)), "no sample is loaded twice"
    assert {len(numbers) for numbers in machine.passes[:-1]} == {4}
    assert list(chain.from_iterable(machine.passes)) == [n for n in range(7 * views) if n != 1]
    assert holds(read(tmp_path, A), range(7 * views))


def fails_at(
    number: int, error: BaseException, load: Callable[[Pairs], Tensor]
) -> Callable[[Pairs], Tensor]:
    calls = 0

    def changed(pairs: Pairs) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error
        return load(pairs)

    return changed


@pytest.mark.parametrize(
    "error", [ImageChangedError(path="a.png", found="1", wanted="2"), KeyboardInterrupt()], ids=repr
)
def test_what_was_computed_before_an_error_stays(tmp_path: Path, error: BaseException) -> None:
    machine, told = Machine(A), []
    threads = threading.active_count()
    load = fails_at(3, error, machine.load)
    with pytest.raises(type(error)):
        extract(
            opened(tmp_path, A),
            keys_of(range(20)),
            load,
            machine.compute,
            chunk_size=4,
            loaded=lambda: told.append("loaded"),
        )
    assert holds(read(tmp_path, A), range(8))
    assert told == ["loaded"]
    assert threading.active_count() == threads, "nobody loads any more"


def test_images_are_told_before_the_last_row_is_committed(tmp_path: Path) -> None:
    sets = opened(tmp_path, A)
    there = []
    run(Machine(A), sets, range(10), loaded=lambda: there.append(holds(read(tmp_path, A), [9])))
    assert there == [False]
    run(Machine(A), sets, range(10), loaded=lambda: there.append(True))
    assert there == [False], "nothing was loaded"


class Full(system.SystemCalls):
    def write(self, fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "full")


def test_a_full_disk_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.0)
    machine = Machine(A)
    monkeypatch.setattr(system, "calls", Full())
    with pytest.raises(CacheFullError):
        run(machine, opened(tmp_path, A), range(20))
    assert machine.passes == [[0, 1, 2, 3]]


def test_a_bad_image_on_a_full_disk_is_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(A)
    load = fails_at(3, ImageChangedError(path="a.png", found="1", wanted="2"), machine.load)
    monkeypatch.setattr(system, "calls", Full())
    with pytest.raises(ImageChangedError):
        extract(opened(tmp_path, A), keys_of(range(20)), load, machine.compute, chunk_size=4)


def test_seconds_are_those_of_the_rows(tmp_path: Path) -> None:
    sets = [fill(tmp_path, A, range(4), seconds=2.0), fill(tmp_path, B, range(4), seconds=2.0)]
    report = run(Machine(A, B), sets, range(4))
    assert report.saved == pytest.approx(2.0), "each set holds the seconds of both"
    assert report.seconds == 0.0


def test_progress_is_told_for_every_row(tmp_path: Path) -> None:
    fill(tmp_path, A, [2])
    machine, told = Machine(A), []
    extract(
        opened(tmp_path, A),
        keys_of([0, 1, 2, 0, 3, 4]),
        machine.load,
        machine.compute,
        chunk_size=2,
        advance=told.append,
    )
    assert told == [2, 2, 2]


def test_reports_add_up() -> None:
    report = Report(rows=1200, misses=200, num_bytes=4_000_000, seconds=3.04, saved=20.0)
    report += Report(rows=10, num_bytes=1000, saved=1.0)
    line = "1,210 rows: 1,010 hits, 200 misses computed in 3.0 s, 4 MB, 21.0 s saved"
    assert report.worded() == line
    assert report.as_data() == {
        "rows": 1210, "hits": 1010, "misses": 200, "bytes": 4_001_000, "seconds": 3.04,
        "seconds_saved": 21.0,
    }  # fmt: skip
    assert Report(rows=2).worded() == "2 rows: 2 hits, 0 misses, 0 B, 0.0 s saved"


def test_keys_of_no_samples(tmp_path: Path) -> None:
    report = run(Machine(A), opened(tmp_path, A), [])
    assert (report.rows, report.misses) == (0, 0)
    assert np.array_equal(missing(opened(tmp_path, A), keys_of([])), np.empty(0, np.int64))
    assert not any(tmp_path.iterdir())
