"""A disk that is full, fails or may not be written while features are stored: the run goes on."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from durable_disks import METHODS

from reliability.small_runs import (
    BLOCK_ROWS,
    CHUNK,
    ROW_BYTES,
    counted,
    ending,
    many_blocks,
    pictures,
    temporaries,
    train,
)
from tlcompile.durable import system
from tlcompile.features import extract
from tlcompile.features.prefix import Prefix
from tlcompile.store.store import Store

COUNT = 40  # pictures
WRITING = tuple(name for name in METHODS if name not in ("close", "unlink", "rmdir", "flock"))
ALONE = "the run goes on without the store, from memory"


class FailingCalls(system.SystemCalls):
    """Fail the N-th call, of some, that changes something below a folder; `once`, or from then on."""

    def __init__(
        self, root: Path, number: int, code: int, *, once: bool, names: tuple[str, ...] = WRITING
    ) -> None:
        self.root, self.number, self.code, self.once = root, number, code, once
        self.names = names
        self.count = 0
        self.below: set[int] = set()

    def _call(self, name: str, *values: Any) -> Any:
        here = values[0] in self.below or self.root in Path(str(values[0])).parents
        if here and name in self.names:
            self.count += 1
            if self.count == self.number or (self.count > self.number and not self.once):
                raise OSError(self.code, os.strerror(self.code))
        result = getattr(system.SystemCalls, name)(self, *values)
        if name == "open" and here:
            self.below.add(result)
        elif name == "close":
            self.below.discard(values[0])
        return result


def _failing(name: str) -> Any:
    return lambda self, *values: self._call(name, *values)


for _name in METHODS:
    setattr(FailingCalls, _name, _failing(_name))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLOCK_BYTES", "BLOCK_ROWS"):
        monkeypatch.setattr(extract, name, getattr(extract, name))  # put back at the end
    many_blocks()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures in `data`, and a run in `run` that nothing has disturbed."""
    root = tmp_path_factory.mktemp("whole")
    train(pictures(root / "data", COUNT // 2), root / "run", root / "cache")
    return root


def fails(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    *,
    once: bool,
    names: tuple[str, ...] = WRITING,
) -> tuple[list[str], int]:
    """Train from a cold store on a failing disk; return what was said, and how often it was asked."""
    cache = tmp_path / f"cache{number}{code}{once}"
    calls = FailingCalls(cache, number, code, once=once, names=names)
    with monkeypatch.context() as patch:
        patch.setattr(system, "calls", calls)
        _, lines = train(whole / "data", tmp_path / "run", cache)
    assert ending(tmp_path / "run") == ending(whole / "run")
    assert temporaries(cache) == []
    stored = Store(cache)
    assert stored.verify() == []
    there = sum(one.rows for one in stored.sets() if one.about.vertex != "pixels")

    again, told = train(whole / "data", tmp_path / "again", cache)
    assert ending(tmp_path / "again") == ending(whole / "run")
    assert again.record["features"]["hits"] == there, "what was stored is used"
    assert len(told) == 1
    return lines, calls.count


def asked(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many calls a run makes where nothing fails."""
    lines, calls = fails(whole, tmp_path, monkeypatch, 10**9, 0, once=True)
    assert len(lines) == 1
    assert ALONE not in lines[0]
    return calls


def test_a_disk_that_fills_up(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = asked(whole, tmp_path, monkeypatch)
    assert calls > 40
    for number, names in ((1, WRITING), (15, ("write",))):
        (line,), _ = fails(
            whole, tmp_path, monkeypatch, number, errno.ENOSPC, once=False, names=names
        )
        assert line.startswith("features    there is no room for features in '"), line
        assert re.search(r"\(needed [1-9][\d,]* bytes, free [1-9][\d,]* bytes\b", line), line
        assert "tlcompile cache gc" in line
        assert line.endswith(ALONE)


def test_a_disk_that_may_not_be_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, reason in ((errno.EACCES, "no permission"), (errno.EIO, "EIO")):
        (line,), _ = fails(whole, tmp_path, monkeypatch, 1, code, once=False)
        assert "features cannot be stored in '" in line
        assert reason in line
        assert "run.cache=FOLDER" in line
        assert line.endswith(ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_any_call_that_fails(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, once: bool
) -> None:
    alone = 0
    for number in range(1, asked(whole, tmp_path, monkeypatch) + 1, 3):
        lines, _ = fails(whole, tmp_path, monkeypatch, number, code, once=once)
        assert len(lines) == 1, lines
        alone += ALONE in lines[0]
    assert alone > 10, "hardly any failure was noticed"


def test_a_file_in_place_of_the_folder(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    for place in (tmp_path / "cache", tmp_path / "cache" / "below"):
        _, (line,) = train(whole / "data", tmp_path / "run", place)
        assert "features cannot be stored in '" in line
        assert line.endswith(ALONE)
        assert ending(tmp_path / "run") == ending(whole / "run")
    assert (tmp_path / "cache").read_text() == "mine"


def test_a_budget_that_is_too_small(whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _, (line,) = train(whole / "data", tmp_path / "run", cache, run={"cache_budget": "100KB"})
    needed = COUNT * ROW_BYTES
    assert f"needed {needed:,} bytes, budget 100,000 bytes" in line
    assert "run.cache_budget=1GB" in line
    assert line.endswith(ALONE)
    assert ending(tmp_path / "run") == ending(whole / "run")
    assert not cache.exists()


def test_a_budget_for_features_and_not_for_images(whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    budget = {"cache_budget": f"{COUNT * ROW_BYTES}B"}
    _, lines = train(whole / "data", tmp_path / "run", cache, run=budget)
    assert "prepared images are not stored" in lines[0]
    assert "40 rows: 0 hits, 40 misses" in lines[1]
    assert [one.about.vertex for one in Store(cache).sets()] == ["relu"]
    _, lines = train(whole / "data", tmp_path / "warm", cache, run=budget)
    assert len(lines) == 1, "a warm run wants no images"
    assert "40 hits" in lines[0]
    assert ending(tmp_path / "run") == ending(tmp_path / "warm") == ending(whole / "run")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Mount a disk of memory, with the options of the test."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if not mount or not unmount:
        pytest.skip("there is no mount command")
    command = [mount, "-t", "tmpfs", "-o", request.param, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount a disk: {done.stderr.strip()}")
    yield place
    subprocess.run([unmount, "--lazy", str(place)], check=True)


@pytest.mark.parametrize(
    ("small_disk", "words", "some"),
    [
        ("size=64k", "there is no room", False),
        ("size=212k", "there is no room", True),  # enough by the count of bytes, not of pages
        ("ro", "features cannot be stored", False),
    ],
    indirect=["small_disk"],
)
def test_a_real_disk(whole: Path, tmp_path: Path, small_disk: Path, words: str, some: bool) -> None:
    _, (line,) = train(whole / "data", tmp_path / "run", small_disk / "cache")
    assert words in line
    assert line.endswith(ALONE)
    assert ending(tmp_path / "run") == ending(whole / "run")
    assert temporaries(small_disk) == []
    assert bool(Store(small_disk / "cache").sets()) == some


def test_ctrl_c_keeps_what_was_computed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, passes, compute = tmp_path / "cache", 3, Prefix.__call__

    def call(self: Prefix, *inputs: Any) -> Any:
        nonlocal passes
        passes -= 1
        if passes < 0:
            raise KeyboardInterrupt
        return compute(self, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Prefix, "__call__", call)
        with pytest.raises(KeyboardInterrupt):
            train(whole / "data", tmp_path / "run", cache)
    assert (3 * CHUNK) % BLOCK_ROWS, "or the last block was full, and this test shows nothing"
    stored = {one.about.vertex: one.rows for one in Store(cache).sets()}
    assert stored["relu"] == 3 * CHUNK
    assert stored["pixels"] >= 3 * CHUNK
    work = counted(monkeypatch)
    train(whole / "data", tmp_path / "run", cache)
    assert work.since() == (COUNT - stored["pixels"], COUNT - 3 * CHUNK)
    assert ending(tmp_path / "run") == ending(whole / "run")


def test_ctrl_c_on_a_full_disk_is_ctrl_c(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, compute = tmp_path / "cache", Prefix.__call__

    def call(_self: Prefix, *_inputs: Any) -> Any:
        calls = FailingCalls(cache, 1, errno.ENOSPC, once=False)
        monkeypatch.setattr(system, "calls", calls)
        monkeypatch.setattr(Prefix, "__call__", compute)  # were it to go on, it would succeed
        raise KeyboardInterrupt

    monkeypatch.setattr(Prefix, "__call__", call)
    with pytest.raises(KeyboardInterrupt):
        train(whole / "data", tmp_path / "run", cache)
