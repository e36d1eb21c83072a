"""Data that grows and changes between runs: only what is new is decoded and computed."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from reliability.small_runs import Work, counted, draw, ending, pictures, train

VIEWS = {
    "data": {"augment": {"train": ["random_resized_crop", "horizontal_flip"]}},
    "features": {"views": 3},
}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return counted(monkeypatch)


class Folder:
    """A folder of pictures that changes, and the number that each picture was drawn from."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = pictures(root, count)
        names = {"ants": 0, "bees": 1}
        self.numbers = {
            root / name / f"{n:03}.png": 2 * n + second
            for name, second in names.items()
            for n in range(count)
        }
        self.fresh = 10_000

    def _move(self, old: Path, new: Path) -> None:
        old.rename(new)
        self.numbers[new] = self.numbers.pop(old)

    def _draw(self, path: Path) -> None:
        self.fresh += 1
        self.numbers[draw(path, self.fresh).resolve()] = self.fresh

    def change(self, choose: random.Random) -> None:
        """Add, change, delete, rename, move to the other class, and copy some pictures."""
        for name in ("ants", "bees"):
            for _ in range(choose.randint(0, 2)):
                self._draw(self.root / name / f"new{self.fresh}.png")
        some = choose.sample(sorted(self.numbers), 5)
        self._draw(some[0])
        some[1].unlink()
        del self.numbers[some[1]]
        self._move(some[2], some[2].with_name(f"renamed{self.fresh}.png"))
        other = {"ants": "bees", "bees": "ants"}[some[3].parent.name]
        self._move(some[3], self.root / other / f"moved{self.fresh}.png")
        copy = some[4].with_name(f"copy{self.fresh}.png")
        shutil.copy(some[4], copy)
        self.numbers[copy] = self.numbers[some[4]]


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_rounds_of_labelling(tmp_path: Path, work: Work, rounds: int) -> None:
    folder = Folder((tmp_path / "data").resolve(), 10)
    train(folder.root, tmp_path / "start", tmp_path / "cache")
    known = set(folder.numbers.values())
    assert work.since() == (len(known), len(known))
    choose = random.Random(0)
    for number in range(rounds):
        folder.change(choose)
        new = set(folder.numbers.values()) - known
        known |= new
        grown, alone = tmp_path / f"grown{number}", tmp_path / f"alone{number}"
        result, _ = train(folder.root, grown, tmp_path / "cache")
        assert new
        assert work.since() == (len(new), len(new)), "once what is new, and nothing else"
        told = result.record["features"]
        assert (told["rows"], told["misses"]) == (len(folder.numbers), len(new))
        train(folder.root, alone, tmp_path / f"empty{number}")
        work.since()
        assert ending(grown) == ending(alone)


def test_the_same_bytes_twice_are_computed_once(tmp_path: Path, work: Work) -> None:
    data = pictures(tmp_path / "data", 6)
    for path in sorted(data.rglob("*.png")):
        other = {"ants": "bees", "bees": "ants"}[path.parent.name]
        shutil.copy(path, data / other / f"same{path.name}")
    train(data, tmp_path / "run", tmp_path / "cache")
    assert work.since() == (12, 12)


def test_what_the_frozen_part_does_not_see_computes_nothing(tmp_path: Path, work: Work) -> None:
    data, cache = pictures(tmp_path / "data", 8), tmp_path / "cache"
    train(data, tmp_path / "cold", cache)
    assert work.since() == (16, 16)
    head = {"remove": {"fc": "replace"}, "add": {"fc": {"layer": "linear", "out": 2}}}
    others = (
        {},
        {"fine_tune": {"seed": 7, "optimizer": {"name": "sgd", "lr": 0.5}}},
        {"data": {"split": {"val": 0.5}, "classes": ["bees", "ants"]}},
        head,
    )
    for number, sections in enumerate(others):
        result, lines = train(data, tmp_path / str(number), cache, **sections)
        assert work.since() == (0, 0), sections
        assert result.record["features"]["misses"] == 0
        assert "16 rows: 16 hits, 0 misses" in lines[0]


def test_another_freeze_point_decodes_nothing(tmp_path: Path, work: Work) -> None:
    data, cache = pictures(tmp_path / "data", 8), tmp_path / "cache"
    train(data, tmp_path / "cold", cache)
    work.since()
    train(data, tmp_path / "deeper", cache, freeze="bn2")
    assert work.since() == (0, 16)
    train(data, tmp_path / "alone", tmp_path / "empty", freeze="bn2")
    assert ending(tmp_path / "deeper") == ending(tmp_path / "alone")


def test_an_image_is_decoded_once_for_all_its_views(tmp_path: Path, work: Work) -> None:
    """Three views never fit evenly into passes of four."""
    data, cache = pictures(tmp_path / "data", 10), tmp_path / "cache"
    cold, _ = train(data, tmp_path / "cold", cache, **VIEWS)
    train_images = sum(cold.record["images"]["train"].values())
    assert work.since() == (20, 3 * train_images + (20 - train_images))
    train(data, tmp_path / "warm", cache, **VIEWS)
    assert work.since() == (0, 0)
    draw(data / "ants" / "new.png", 999)
    more, _ = train(data, tmp_path / "more", cache, **VIEWS)
    decoded, rows = work.since()
    moved = sum(more.record["images"]["train"].values()) - train_images  # one can change sides
    assert decoded <= 3
    assert rows == more.record["features"]["misses"] > 0
    assert moved <= 1
    train(data, tmp_path / "alone", tmp_path / "empty", **VIEWS)
    assert ending(tmp_path / "more") == ending(tmp_path / "alone")
