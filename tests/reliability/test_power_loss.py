"""Stop at every single operation on the disk while checkpoints are saved, in three ways.

A process is killed; the power goes, and the disk forgets what was not brought to it; or it has the
first 4 KiB blocks of what was being written. What is left is one whole generation: the last that was
committed or the one that was being saved, never weights of one with an optimizer of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from durable_disks import Killed, Mutant, Node, PowerLossCalls, do_not_wait, replaced_calls
from torch import Tensor

from tlcompile.durable import remove_at_once
from tlcompile.durable.manifest import entry_of, manifest_bytes
from tlcompile.training import checkpoint
from tlcompile.training.checkpoint import Checkpoints

SAVES = 4
BESTS = (1, 3)
FIRST = 2  # from here on the power may go
BLOCK = 4096  # bytes that a disk writes at once

Save = Callable[[Checkpoints, int], None]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_wait(monkeypatch)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory, where that can be: what a disk does is modelled here."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tlcompile-", dir=memory) as folder:
        yield Path(folder)


def of(number: int) -> dict[str, Tensor]:
    """Return the tensors of the n-th save: two blocks and some more each."""
    return {name: torch.full((2100,), float(number)) for name in ("model/w", "optimizer/w/exp_avg")}


def best_of(number: int) -> dict[str, Tensor]:
    return {"w": torch.full((1100,), -float(number))}


def save(checkpoints: Checkpoints, number: int) -> None:
    best = best_of(number) if number in BESTS else None
    checkpoints.save(number, of(number), {"epoch": number}, best)


def verdict(folder: Path) -> int | str:
    """Say which save is there, or what is wrong."""
    lines: list[str] = []
    saved = Checkpoints(folder, say=lines.append).newest()
    shutil.rmtree(folder)  # at once: the disk hardly sees it
    if lines:
        return f"unreadable: {lines}"
    if saved is None:
        return "nothing"
    number = saved.number
    if saved.data != {"epoch": number} or not equal(saved.tensors, of(number)):
        return f"mixed: {saved}"
    if not equal(saved.best, best_of(max(best for best in BESTS if best <= number))):
        return f"the best weights of another epoch: {saved}"
    return number


def equal(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    return one is not None and all(torch.equal(one[name], other[name]) for name in other)


def stops(
    place: Path, save: Save = save, mutant: Mutant | None = None
) -> Iterator[tuple[int, str, int | str]]:
    """Stop at every operation; yield the saves that were done, how it stopped, and what is left."""
    for number in itertools.count(1):
        folder = place / str(number)
        folder.mkdir()
        calls = PowerLossCalls(folder, number, mutant)
        with replaced_calls(calls), contextlib.suppress(Killed):
            checkpoints = Checkpoints(folder)
            for done in range(SAVES):
                if done + 1 == FIRST:
                    calls.arm()
                save(checkpoints, done + 1)
            done = SAVES
        calls.close_all()
        for early in itertools.product((False, True), repeat=2):
            after = place / f"{number}-{early}"
            calls.disk_after_power_loss(after, *early)
            yield done, f"power loss {early}", verdict(after)
        after = place / f"{number}-torn"
        torn(calls.disk, after)
        yield done, "torn write", verdict(after)
        yield done, "killed", verdict(folder)  # last: it clears what was left
        if calls.count < number:
            return


def torn(node: Node, place: Path) -> None:
    """Write a disk that has all names, and of unsafe bytes the first half, in whole blocks."""
    if not node.folder:
        half = len(node.data) // 2 // BLOCK * BLOCK
        place.write_bytes(node.data if node.data == node.safe_data else node.data[:half])
        return
    place.mkdir()
    for name, inside in node.names.items():
        torn(inside, place / name)


def is_wrong(stop: tuple[int, str, int | str]) -> bool:
    """Tell whether a stop has lost a save, or left what nobody saved."""
    done, _, left = stop
    return left not in (done, done + 1)


def test_every_stop_leaves_a_whole_generation(place: Path) -> None:
    found = list(stops(place))
    assert len(found) > 300, "hardly anything was written"
    assert not list(filter(is_wrong, found))
    assert {left for _, _, left in found} == set(range(1, SAVES + 1))


@pytest.mark.parametrize("mutant", [Mutant.NO_FSYNC, Mutant.NO_FSYNC_DIR])
def test_a_mistake_in_durable_is_seen(place: Path, mutant: Mutant) -> None:
    assert any(map(is_wrong, stops(place, mutant=mutant)))


def best_last(monkeypatch: pytest.MonkeyPatch) -> Save:
    """Commit a generation before the best weights that it refers to."""
    waiting: dict[Path, Mapping[str, bytes]] = {}
    commit, digest_of = checkpoint.commit_folder, checkpoint._digest_of

    def commit_best_later(target: Path, files: Mapping[str, bytes]) -> None:
        if target.name.startswith("best-"):
            waiting[target] = files
            return
        commit(target, files)
        for late in list(waiting):
            files = waiting.pop(late)
            if late.parent == target.parent:  # else a process that was stopped left it
                commit(late, files)

    def digest(folder: Path) -> str:
        if folder not in waiting:
            return digest_of(folder)
        entries = {name: entry_of(data) for name, data in sorted(waiting[folder].items())}
        return hashlib.sha256(manifest_bytes(entries)).hexdigest()

    monkeypatch.setattr(checkpoint, "commit_folder", commit_best_later)
    monkeypatch.setattr(checkpoint, "_digest_of", digest)
    return save


def old_first(_monkeypatch: pytest.MonkeyPatch) -> Save:
    """Remove the old generations before the new one is on the disk."""

    def remove_and_save(checkpoints: Checkpoints, number: int) -> None:
        for name in checkpoints._generations():
            remove_at_once(checkpoints.folder / name)
        save(checkpoints, number)

    return remove_and_save


@pytest.mark.parametrize("mutant", [best_last, old_first])
def test_a_mistake_in_the_order_of_things_is_seen(
    place: Path, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], Save]
) -> None:
    assert any(map(is_wrong, stops(place, mutant(monkeypatch))))
