"""Many processes on one set of the store, some of them killed; B5 of the reliability bars.

    python store_fire.py FOLDER SETTINGS-AS-JSON WAY...

It imports torch once and forks: a process costs milliseconds, so hundreds fit into a test. What it
finds is printed as JSON. WAY: locks, always (every lock is given), readonly (no lock can be made),
evicted (locks work, and the set is evicted again and again).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from stored_rows import about, holds, keys_of, rows_of

from tlcompile.durable import leftovers, system
from tlcompile.store.lease import LOCK
from tlcompile.store.store import FeatureSet, Store

OF = about("fire", shape=(64,))
MIXED_FROM = 10**6  # numbers of rows that the mixed processes write; starters want those from 0


@dataclass(frozen=True)
class Settings:
    """How large the fire is."""

    starters: int = 6  # processes that start at once and want the same rows
    blocks: int = 10  # that they want
    rows: int = 4  # a block
    compute: float = 0.01  # seconds a block
    mixed: int = 3  # processes that read and write
    operations: int = 20  # of each
    kills: int = 5
    patience: float = 20.0  # seconds
    seed: int = 0


@dataclass
class Findings:
    """What went wrong, and how much work was done."""

    errors: list[str] = field(default_factory=list)  # of processes that nobody killed
    kills: int = 0
    computed: int = 0  # blocks that starters computed, those of killed ones too
    wanted: int = 0
    longest_stall: float = 0.0  # seconds that a process waited without progress
    evictions: int = 0


class AlwaysLocked(system.SystemCalls):
    """A network disk on which everyone gets the lock."""

    def flock(self, fd: int, operation: int) -> None:
        del fd, operation


class NoLockFile(system.SystemCalls):
    """A folder in which no lock can be made."""

    def open(self, path: Path, flags: int) -> int:
        if path.name == LOCK:
            raise PermissionError(errno.EACCES, "read-only")
        return super().open(path, flags)


WAYS: dict[str, Callable[[], system.SystemCalls]] = {
    "locks": system.SystemCalls,
    "always": AlwaysLocked,
    "readonly": NoLockFile,
    "evicted": system.SystemCalls,
}


class Watched(FeatureSet):
    """Notes how long a wait goes without progress."""

    stall = 0.0
    since: float | None = None

    def refresh(self) -> bool:
        progress = super().refresh()
        now = time.monotonic()
        if self.since is not None:
            self.stall = max(self.stall, now - self.since)
            self.since = now if progress else self.since
        return progress

    @contextlib.contextmanager
    def lease(self, wanted: np.ndarray, patience: float = 30.0) -> Iterator[None]:
        self.since = time.monotonic()
        with super().lease(wanted, patience):
            self.since = None
            yield


# What each process does; an exception is a finding


def start_cold(folder: Path, features: Watched, settings: Settings) -> None:
    """Want all rows, compute those that are missing, and read them all."""
    while not (folder / "go").exists():
        time.sleep(0.001)
    wanted = range(settings.blocks * settings.rows)
    keys = keys_of(wanted)
    with features.lease(keys, settings.patience):
        for first in range(0, len(wanted), settings.rows):
            part = range(first, first + settings.rows)
            if (features.locate(keys[first : first + settings.rows]) < 0).any():
                note(folder / "work", "computed")
                time.sleep(settings.compute)
                # Equal seconds: two that compute the same write the same file at the same time.
                features.write(keys_of(part), rows_of(part, OF), 1.0)
    note(folder / "stalls", str(features.stall))
    assert holds(features, wanted), "a wrong or a missing row"
    assert not features.damaged, features.damaged


def read_and_write(
    folder: Path, features: Watched, settings: Settings, draw: random.Random
) -> None:
    """Find, read, write, touch, wait: anything, again and again."""
    for _ in range(settings.operations):
        kind = draw.random()
        numbers = [draw.randrange(settings.blocks * settings.rows) for _ in range(8)]
        ours = [MIXED_FROM + draw.randrange(500) for _ in range(3)]
        if kind < 0.75:
            features.refresh()
            found = features.locate(keys_of(numbers + ours)) >= 0
            there = [n for n, is_there in zip(numbers + ours, found, strict=True) if is_there]
            assert holds(features, there), "a wrong row"
        elif kind < 0.95:
            features.write(keys_of(ours), rows_of(ours, OF), 1.0)
            assert holds(features, ours), "a row that was just written"
        else:
            features.mark_used()
        assert not features.damaged, features.damaged
    del folder


def evict_often(folder: Path, stop: Path) -> None:
    """Evict everything, until the others have ended, and once more."""
    is_last = False
    while not is_last:
        is_last = stop.exists()
        for _ in Store(folder / "cache").collect(0):
            note(folder / "evictions", "1")
        time.sleep(0.02)


def note(path: Path, text: str) -> None:
    """Append a line, whole, whoever else does: it is shorter than a page."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{os.getpid()} {text}\n".encode())
    os.close(fd)


# Processes


class Fire:
    """Forks processes, kills some, and collects what they say."""

    def __init__(self, folder: Path, way: str, settings: Settings) -> None:
        self.folder, self.way, self.settings = folder, way, settings
        self.draw = random.Random(settings.seed)
        self.findings = Findings(wanted=settings.blocks)
        self.living: dict[int, Callable[[], None]] = {}
        self.killed: set[int] = set()
        self.number = 0

    def run(self) -> Findings:
        for _ in range(self.settings.starters):
            self.fork(self.starter)
        for _ in range(self.settings.mixed):
            self.fork(self.mixer)
        (self.folder / "go").touch()
        stop = self.folder / "stop"
        collector = (
            self.fork(lambda: evict_often(self.folder, stop)) if self.way == "evicted" else 0
        )
        while self.living.keys() - {collector}:
            if self.findings.kills < self.settings.kills:
                self.kill_one(collector)
                if len(self.living) < 4:
                    self.fork(self.mixer)  # a fast machine would be done before enough are killed
            self.reap()
            time.sleep(self.draw.uniform(0.001, 0.02))
        stop.touch()
        while self.living:
            self.reap()
            time.sleep(0.01)
        return self.collected()

    def starter(self) -> None:
        start_cold(self.folder, self.features(), self.settings)

    def mixer(self) -> None:
        draw = random.Random(self.settings.seed + os.getpid())
        read_and_write(self.folder, self.features(), self.settings, draw)

    def features(self) -> Watched:
        there = Store(self.folder / "cache").open(OF)
        return Watched(there._cache, there._folder, there._quarantine, OF)

    def fork(self, work: Callable[[], None]) -> int:
        self.number += 1
        child = os.fork()
        if not child:
            self.be_on_some_host()
            os._exit(self.do(work))
        self.living[child] = work
        return child

    def be_on_some_host(self) -> None:
        """Be on one of two machines, with a wrong clock; twins on the two have equal pids."""
        system.calls = WAYS[self.way]()
        random.seed(self.number)
        if self.number % 2 and self.living:
            twin = list(self.living)[-1]
            leftovers.HOST = "second"  # type: ignore[misc]
            leftovers.os = Twin(twin)  # type: ignore[assignment]
        skew, wall = random.uniform(-3600, 3600), time.time
        time.time = lambda: wall() + skew

    def do(self, work: Callable[[], None]) -> int:
        try:
            work()
        except BaseException:
            note(self.folder / "errors", traceback.format_exc()[-1500:].replace("\n", " | "))
            return 1
        return 0

    def kill_one(self, collector: int) -> None:
        """Kill one process; half of the time the one that has computed last."""
        alive = sorted(self.living.keys() - {collector})
        workers = [int(line.split()[0]) for line in self.lines("work")[-1:]]
        busy = [pid for pid in workers if pid in self.living]
        victim = busy[0] if busy and self.draw.random() < 0.5 else self.draw.choice(alive)
        os.kill(victim, signal.SIGKILL)
        self.killed.add(victim)

    def reap(self) -> None:
        while self.living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            work = self.living.pop(pid)
            signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            if pid in self.killed and signal_number == signal.SIGKILL:
                self.findings.kills += 1
                self.fork(work)  # so that as many end as have begun
            elif signal_number:
                self.findings.errors.append(f"{pid} died of signal {signal_number}")

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def collected(self) -> Findings:
        self.findings.errors += self.lines("errors")
        self.findings.computed = len(self.lines("work"))
        self.findings.evictions = len(self.lines("evictions"))
        stalls = [float(line.split()[1]) for line in self.lines("stalls")]
        self.findings.longest_stall = max(stalls, default=0.0)
        return self.findings


class Twin:
    """The module os, as a process sees it that has another one's number."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def getpid(self) -> int:
        return self.pid

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, given, *ways = sys.argv[1:]
    found = {}
    for chosen in ways:
        folder = Path(place) / chosen
        folder.mkdir()
        found[chosen] = vars(Fire(folder, chosen, Settings(**json.loads(given))).run())
    sys.stdout.write(json.dumps(found))
