"""Damaged images and damaged blocks: said once, computed again, and never in a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from reliability.small_runs import Work, counted, ending, pictures, split, train
from tlcompile.errors.data import UnreadableImagesError
from tlcompile.store.store import Store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pictures(tmp_path / "data", 8)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return counted(monkeypatch)


def test_bad_images_are_named_all_at_once_and_the_good_ones_are_kept(
    tmp_path: Path, data: Path, work: Work
) -> None:
    names = [data / "ants" / "bad.png", data / "bees" / "bad.png"]
    for path in names:
        path.write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError) as caught:
        train(data, tmp_path / "run", tmp_path / "cache")
    assert [path for path, _ in caught.value.images] == list(map(str, names))
    for path in names:
        path.unlink()
    kept = sum(one.rows for one in Store(tmp_path / "cache").sets() if one.about.vertex == "relu")
    assert kept > 0
    work.since()
    train(data, tmp_path / "run", tmp_path / "cache")
    assert work.rows == 16 - kept


def flip(cache: Path, vertex: str) -> Path:
    """Flip the last bit of the first block of a set."""
    store = Store(cache)
    (one,) = [one for one in store.sets() if one.about.vertex == vertex]
    block = sorted(one.folder.glob("*.rows"))[0]
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    block.write_bytes(data)
    return block


def test_a_damaged_block_is_put_aside_said_once_and_computed_again(
    tmp_path: Path, work: Work
) -> None:
    data, cache = split(tmp_path / "data"), tmp_path / "cache"
    train(data, tmp_path / "run", cache)
    work.since()
    block = flip(cache, "relu")
    result, lines = train(data, tmp_path / "again", cache)
    assert len(lines) == 2, "three splits, one line"
    assert lines[0].startswith(f"features    put aside: '{block}': the sha256 of its bytes")
    assert 0 < result.record["features"]["misses"] == work.rows < 20
    assert work.decoded == []
    assert ending(tmp_path / "again") == ending(tmp_path / "run")
    assert len(Store(cache).quarantined()) == 1
    _, lines = train(data, tmp_path / "third", cache)
    assert len(lines) == 1
    assert Store(cache).verify() == []


def test_damaged_images_are_decoded_again_when_they_are_wanted(
    tmp_path: Path, data: Path, work: Work
) -> None:
    cache = tmp_path / "cache"
    train(data, tmp_path / "run", cache)
    flip(cache, "pixels")
    _, lines = train(data, tmp_path / "warm", cache)
    assert len(lines) == 1, "a warm run wants none"
    work.since()
    _, lines = train(data, tmp_path / "deeper", cache, freeze="bn2")
    assert len(lines) == 2
    assert "put aside" in lines[0]
    assert len(work.decoded) > 0
    train(data, tmp_path / "alone", tmp_path / "empty", freeze="bn2")
    assert ending(tmp_path / "deeper") == ending(tmp_path / "alone")
