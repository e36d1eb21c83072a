"""B3 for checkpoints: no damaged file gives a value, and the run goes on from the one before.

Each case damages one file, or puts a whole stale generation in the place of another, and asks for the
newest: it is the one that it should be, right to the bit; the damage is told once, with the file and
what was expected and found; and what was damaged is kept.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from durable_disks import do_not_wait
from torch import Tensor

from tlcompile.durable import generations, manifest
from tlcompile.training.checkpoint import Checkpoints

RUN = "flowers-1a2b3c4d"
BESTS = (1, 3)
SECTOR = 4096
# Which generation is taken when a folder is damaged; 2 needs best-1, and 3 needs best-3.
TAKEN = {"000002": 3, "best-000001": 3, "000003": 2, "best-000003": 2}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_wait(monkeypatch)


def of(number: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(number)
    return {"model/w": torch.randn(40, 50, generator=draw), "optimizer/step": torch.tensor(number)}


def best_of(number: int) -> dict[str, Tensor]:
    return {"w": -of(number)["model/w"]}


def make(folder: Path, run: str = RUN) -> None:
    checkpoints = Checkpoints(folder, run=run)
    for number in range(1, 4):
        best = best_of(number) if number in BESTS else None
        checkpoints.save(number, of(number), {"epoch": number}, best)


# What happens to a file: its bytes -> other bytes

Damage = Callable[[Path, bytes, random.Random], bytes]


def flip(_path: Path, data: bytes, draw: random.Random) -> bytes:
    bad, bit = bytearray(data), draw.randrange(8 * len(data))
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def truncate(_path: Path, data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice([0, 1, len(data) - 1, draw.randrange(len(data))])]


def zero(_path: Path, data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(0, len(data), SECTOR)
    lost = min(SECTOR, len(data) - start)
    return data[:start] + bytes(lost) + data[start + lost :]


def swap(path: Path, _data: bytes, draw: random.Random) -> bytes:
    """A file of the same name, of another generation or of another run, stands there."""
    others = [*path.parents[1].glob(f"*/{path.name}")]
    others += path.parents[2].with_name("another").glob(f"checkpoints/*/{path.name}")
    return draw.choice(sorted(others)).read_bytes()


KINDS: dict[Damage, int] = {flip: 400, truncate: 400, zero: 200, swap: 200}


class Case(NamedTuple):
    folder: Path  # the run's
    path: Path
    data: bytes


def damaged(folder: Path, damage: Damage, draw: random.Random) -> Case:
    """Damage a file; what leaves it as it was is drawn again."""
    files = sorted(path for name in TAKEN for path in (folder / "checkpoints" / name).iterdir())
    while True:
        path = draw.choice(files)
        good = path.read_bytes()
        bad = damage(path, good, draw)
        if bad != good:
            path.write_bytes(bad)
            return Case(folder, path, bad)


def faults(case: Case) -> Iterator[str]:
    """Ask for the newest as a new process does, and say what is not as it should be."""
    lines: list[str] = []
    try:
        saved = Checkpoints(case.folder, run=RUN, say=lines.append).newest()
    except Exception as error:
        yield f"{type(error).__name__}: {error}"
        return
    name = case.path.parent.name
    wanted = TAKEN[name]
    if saved is None or saved.number != wanted:
        yield f"taken: {saved}"
        return
    right = of(wanted), best_of(3 if wanted == 3 else 1)
    for found, good in zip((saved.tensors, saved.best), right, strict=True):
        if found is None or any(not torch.equal(found[key], good[key]) for key in good):
            yield "a wrong value"
    if wanted == 3:
        return  # nobody had a reason to look at what is damaged
    # A manifest that is not its folder's says that of one of its files.
    named = case.path.parent if case.path.name == "manifest.json" else case.path
    if len(lines) != 1 or str(named) not in lines[0] or "expected " not in lines[0]:
        yield f"told: {lines}"
    kept = [path.read_bytes() for path in case.folder.glob(f"quarantine/*/{case.path.name}")]
    if case.data not in kept:
        yield "it is not kept as it was"


def found_faults(root: Path, damage: Damage, count: int) -> list[str]:
    make(root / "good")
    make(root / "another", "birds-0a0b0c0d")
    draw = random.Random(f"{damage.__name__} of checkpoints")
    wrong = []
    for number in range(count):
        folder = root / str(number)
        shutil.copytree(root / "good", folder)
        case = damaged(folder, damage, draw)
        wrong += [f"{number} {case.path.relative_to(folder)}: {fault}" for fault in faults(case)]
        shutil.rmtree(folder)
    return wrong


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_damage_is_found_before_the_first_value_is_used(tmp_path: Path, damage: Damage) -> None:
    assert not found_faults(tmp_path, damage, KINDS[damage] // 20)


@pytest.mark.slow
@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_damage_is_always_found(tmp_path: Path, damage: Damage) -> None:
    assert not found_faults(tmp_path, damage, KINDS[damage])


def test_a_stale_folder_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    """Its own manifest says that all is well; its number, or its run, does not."""
    make(tmp_path / "good")
    make(tmp_path / "another", "birds-0a0b0c0d")
    stale = [("good", "000002", "000003"), ("good", "best-000001", "best-000003")]
    stale += [("another", "000003", "000003"), ("another", "best-000003", "best-000003")]
    for number, (run, source, target) in enumerate(stale):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "good", folder)
        place = folder / "checkpoints" / target
        shutil.rmtree(place)
        shutil.copytree(tmp_path / run / "checkpoints" / source, place)
        case = Case(folder, place / "manifest.json", (place / "manifest.json").read_bytes())
        found = [fault for fault in faults(case) if not fault.startswith("told")]
        assert not found, stale[number]


def test_without_damage_the_oracle_says_no(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "checkpoints" / "000003" / "state.json"
    assert list(faults(Case(tmp_path, path, path.read_bytes())))


@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_a_digest_of_the_header_alone_would_be_seen(
    tmp_path: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeded defect of the bar: the first bytes are right, so the file is believed."""

    def of_header(data: bytes) -> manifest.Entry:
        return manifest.Entry(0, hashlib.sha256(data[:16]).hexdigest())

    for module in (manifest, generations):
        monkeypatch.setattr(module, "entry_of", of_header)
    assert found_faults(tmp_path, damage, 20)
