"""B3 for the store: no damaged file gives a value. Flips, cuts, lost sectors, swapped and stale files.

Each case damages one file of a store, opens the set as a new process does, and asks for everything:
the damage is told once with the file's name, the file is kept in quarantine as it was, and all that
is still found is right to the bit.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from durable_disks import do_not_wait
from stored_rows import about, block_files, fill, folder_of, holds, keys_of, read

from tlcompile.store import blocks
from tlcompile.store.about import ABOUT
from tlcompile.store.store import Store

PARTS = (range(5), range(5, 12), range(12, 13))
A, B = about("a"), about("b")
SECTOR = 4096


def make(cache: Path) -> None:
    for of in (A, B):
        fill(cache, of, *PARTS)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_wait(monkeypatch)


# What happens to a file: its bytes -> other bytes

Damage = Callable[[bytes, random.Random, Path], bytes]


def flip(data: bytes, draw: random.Random, cache: Path) -> bytes:
    bad, bit = bytearray(data), draw.randrange(8 * len(data))
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def truncate(data: bytes, draw: random.Random, cache: Path) -> bytes:
    return data[: draw.choice([0, 1, len(data) - 1, draw.randrange(len(data))])]


def zero(data: bytes, draw: random.Random, cache: Path) -> bytes:
    start = draw.randrange(0, len(data), SECTOR)
    lost = min(SECTOR, len(data) - start)
    return data[:start] + bytes(lost) + data[start + lost :]


def swap(data: bytes, draw: random.Random, cache: Path) -> bytes:
    """Another file of the same kind, of this set or of another one, stands under this name."""
    blocks_, abouts = [], []
    for of in (A, B):
        blocks_ += block_files(cache, of)
        abouts.append(folder_of(cache, of) / ABOUT)
    kind = abouts if data.lstrip()[:2] == b"{\n" else blocks_
    return draw.choice([path.read_bytes() for path in kind])


KINDS: dict[Damage, int] = {flip: 1000, truncate: 1000, zero: 500, swap: 500}  # the bar's shares


class Case(NamedTuple):
    path: Path
    data: bytes
    numbers: range | None  # of the rows in the block; None: about.json


def damaged(cache: Path, damage: Damage, draw: random.Random) -> Case:
    """Damage a file; what leaves it as it was is drawn again."""
    files = [*block_files(cache, A), folder_of(cache, A) / ABOUT]
    while True:
        path = draw.choice(files)
        good = path.read_bytes()
        bad = damage(good, draw, cache)
        if bad == good:
            continue
        rows = None if path.name == ABOUT else blocks.read_header(path).rows
        path.unlink()
        path.write_bytes(bad)
        return Case(path, bad, next((part for part in PARTS if len(part) == rows), None))


def faults(cache: Path, case: Case) -> Iterator[str]:
    """Open the set as a new process does, and say what is not as it should be."""
    blocks._verified.clear()
    if [bad.path for bad in Store(cache).verify()] != [case.path]:
        yield "verify does not name it"
    features = read(cache, A)
    features.refresh()
    if len(features.damaged) != 1 or str(case.path) not in features.damaged[0]:
        yield f"told: {features.damaged}"
    kept = [path.read_bytes() for path in Store(cache).quarantined()]
    if kept != [case.data]:
        yield "it is not kept as it was"
    for part in PARTS:
        if part == case.numbers:
            if (features.locate(keys_of(part)) >= 0).any():
                yield "rows of a damaged block are found"
        elif not holds(features, part):
            yield "rows of good blocks are lost or wrong"
    if Store(cache).verify():
        yield "it is still there"


def found_faults(tmp_path: Path, damage: Damage, count: int) -> list[str]:
    make(tmp_path / "good")
    draw = random.Random(f"{damage.__name__} of the store")
    wrong = []
    for number in range(count):
        cache = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", cache)
        case = damaged(cache, damage, draw)
        wrong += [f"{number} {case.path.name}: {fault}" for fault in faults(cache, case)]
        shutil.rmtree(cache)
    return wrong


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_damage_is_found_before_the_first_value_is_used(tmp_path: Path, damage: Damage) -> None:
    assert not found_faults(tmp_path, damage, KINDS[damage] // 50)


@pytest.mark.slow
@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_damage_is_always_found(tmp_path: Path, damage: Damage) -> None:
    """All 3,000 cases of the bar."""
    assert not found_faults(tmp_path, damage, KINDS[damage])


def test_a_store_without_damage_has_no_faults_but_the_missing_one(tmp_path: Path) -> None:
    """The oracle can say no: nothing is damaged here, so nothing is told and nothing is kept."""
    make(tmp_path)
    path = block_files(tmp_path, A)[0]
    case = Case(path, path.read_bytes(), PARTS[0])
    assert {fault.partition(":")[0] for fault in faults(tmp_path, case)} >= {
        "verify does not name it",
        "told",
        "it is not kept as it was",
        "rows of a damaged block are found",
    }


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_a_digest_of_the_header_alone_would_be_seen(
    tmp_path: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded defect of the bar: the first line is right, so the block is believed."""
    monkeypatch.setattr(blocks, "_read_whole", blocks.read_header)
    assert found_faults(tmp_path, damage, 6)
