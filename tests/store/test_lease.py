"""A lease saves work: it waits while others get on, never longer, and nothing depends on it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from durable_disks import CountingCalls, replaced_calls
from stored_rows import about, fill, folder_of, holds, keys_of, rows_of

from tlcompile.durable import Lock, locks, system, take_lock
from tlcompile.errors.run import NoPermissionError, WriteFailedError
from tlcompile.store import lease
from tlcompile.store.lease import LOCK
from tlcompile.store.store import FeatureSet, Store

A = about("a")


class Clock:
    """Time that passes in sleep alone; `events` happen at their second."""

    def __init__(self, events: dict[float, Callable[[], object]] | None = None) -> None:
        self.now = 1000.0
        self.start, self.events = self.now, events or {}

    @property
    def waited(self) -> float:
        return self.now - self.start

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for second in [s for s in self.events if s <= self.waited]:
            self.events.pop(second)()

    def time(self) -> float:
        """A wall clock that is set an hour forth and back all the time."""
        self.wall = -getattr(self, "wall", -3600.0)
        return self.now + self.wall


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    monkeypatch.setattr(time, "time", clock.time)
    return clock


@contextlib.contextmanager
def held(cache: Path) -> Iterator[FeatureSet]:
    """Another process that holds the lease."""
    theirs = Store(cache).open(A)
    with theirs.lease(keys_of([10**6])):
        yield theirs


def write(features: FeatureSet, *numbers: int) -> None:
    features.write(keys_of(numbers), rows_of(numbers, A), 1.0)


def is_free(cache: Path) -> bool:
    lock = take_lock(folder_of(cache, A) / LOCK)
    if lock is None:
        return False
    with lock:
        return True


def test_the_lease_is_ours_inside_and_free_after(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)
    with features.lease(keys_of([0])):
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
    with pytest.raises(KeyError), features.lease(keys_of([0])):
        raise KeyError
    assert is_free(tmp_path)
    assert clock.waited == 0


def test_it_has_been_refreshed_inside(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)
    fill(tmp_path, A, range(3))
    with features.lease(keys_of([0, 5])):
        assert holds(features, range(3))


def test_what_came_between_the_last_look_and_the_lock_is_seen(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_after_a_write(path: Path) -> Lock | None:
        fill(tmp_path, A, range(3))
        return take_lock(path)

    monkeypatch.setattr(lease, "take_lock", take_after_a_write)
    features = Store(tmp_path).open(A)
    with features.lease(keys_of(range(3))):
        assert holds(features, range(3))


def test_it_does_not_wait_when_all_has_come(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)
    with held(tmp_path) as theirs:
        write(theirs, 0, 1, 2)
        with features.lease(keys_of([2, 0])):
            assert holds(features, [0, 1, 2])
    assert clock.waited == 0


def test_it_waits_until_all_has_come(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)
    with held(tmp_path) as theirs:
        clock.events = {5.0: lambda: write(theirs, 0), 8.0: lambda: write(theirs, 1, 2)}
        with features.lease(keys_of([0, 2])):
            assert holds(features, [0, 1, 2])
    assert 8.0 <= clock.waited <= 8.0 + lease.LONGEST_PAUSE


def test_it_waits_as_long_as_there_is_progress_and_no_longer(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)
    with held(tmp_path) as theirs:
        clock.events = {25.0 * n: lambda n=n: write(theirs, n) for n in range(1, 5)}
        with features.lease(keys_of(range(100)), patience=30.0):
            assert holds(features, range(1, 5))
            assert not is_free(tmp_path), "it goes on without"
    assert 130.0 <= clock.waited <= 130.0 + lease.LONGEST_PAUSE


def test_damaged_blocks_are_no_progress(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)

    def spoil(number: int) -> None:
        (folder_of(tmp_path, A) / f"{number:064x}.rows").write_bytes(b"")

    with held(tmp_path):
        clock.events = {float(n): lambda n=n: spoil(n) for n in range(1, 90)}
        with features.lease(keys_of([0]), patience=30.0):
            assert features.damaged
    assert clock.waited <= 30.0 + lease.LONGEST_PAUSE


def test_it_gets_the_lock_when_the_other_is_done(tmp_path: Path, clock: Clock) -> None:
    features = Store(tmp_path).open(A)
    with contextlib.ExitStack() as other:
        other.enter_context(held(tmp_path))
        clock.events = {3.0: other.close}
        with features.lease(keys_of([0])):
            assert not is_free(tmp_path)
    assert 3.0 <= clock.waited <= 3.0 + lease.LONGEST_PAUSE


def test_the_time_of_the_lock_file_does_not_matter(tmp_path: Path, clock: Clock) -> None:
    for skew in (-3600.0, 3600.0):
        clock.start, seconds = clock.now, time.monotonic()
        with held(tmp_path):
            os.utime(folder_of(tmp_path, A) / LOCK, (seconds + skew, seconds + skew))
            with Store(tmp_path).open(A).lease(keys_of([0]), patience=30.0):
                assert 30.0 <= clock.waited <= 30.0 + lease.LONGEST_PAUSE


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOLCK])
@pytest.mark.parametrize("call", ["open", "flock"])
def test_without_a_lock_it_goes_on_at_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    before = getattr(system.SystemCalls, call)

    def fail(self: object, place: object, value: int) -> object:
        if call == "flock" or Path(str(place)).name == LOCK:
            raise OSError(code, os.strerror(code))
        return before(self, place, value)

    with held(tmp_path):
        monkeypatch.setattr(system.SystemCalls, call, fail)
        features = Store(tmp_path).open(A)
        with features.lease(keys_of([0])):
            write(features, 0)
        assert holds(features, [0])
        assert not features.damaged
    assert clock.waited == 0


def test_a_lock_that_everyone_gets_costs_work_alone(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system.SystemCalls, "flock", lambda *_values: None)
    features = Store(tmp_path).open(A)
    with held(tmp_path) as theirs, features.lease(keys_of([0, 1])):
        write(theirs, 0, 1)
        write(features, 0, 1)
        assert holds(features, [0, 1])
        assert holds(theirs, [0, 1])
    assert clock.waited == 0


def test_the_lease_of_a_killed_process_is_free(tmp_path: Path) -> None:
    features = Store(tmp_path).open(A)
    ready, done = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException), features.lease(keys_of([0])):
            os.write(done, b"1")
            signal.pause()
        os._exit(0)
    try:
        os.read(ready, 1)
        assert not is_free(tmp_path)
        assert Store(tmp_path).collect(0) == []
        assert folder_of(tmp_path, A).exists(), "a living process holds it"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(done)
    assert is_free(tmp_path)


def test_a_lease_ends_though_a_forked_child_has_the_file_open(tmp_path: Path) -> None:
    features = Store(tmp_path).open(A)
    with features.lease(keys_of([0])):
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
    try:
        assert is_free(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# durable/locks.py


def test_a_lock_that_was_evicted_before_we_had_it_does_not_count(tmp_path: Path) -> None:
    """Another process would lock the file that stands there now, and both would have it."""

    class Evicting(system.SystemCalls):
        left = 3

        def flock(self, fd: int, operation: int) -> None:
            if operation == fcntl.LOCK_EX and self.left:
                self.left -= 1
                (tmp_path / "lock").unlink()
            super().flock(fd, operation)

    opened = len(os.listdir("/proc/self/fd"))
    with replaced_calls(Evicting()):
        lock = take_lock(tmp_path / "lock")
    assert lock is not None
    assert take_lock(tmp_path / "lock") is None
    with lock:
        pass
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_lock_that_is_removed_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_is_at", lambda *_values: False)
    assert take_lock(tmp_path / "lock") is None


def test_any_call_that_fails_while_locking_is_a_typed_error(tmp_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    for code, kind in ((errno.EACCES, NoPermissionError), (errno.EIO, WriteFailedError)):
        for number in range(1, 5):
            calls = CountingCalls(number, OSError(code, "no"))
            with replaced_calls(calls), pytest.raises(kind):
                take_lock(tmp_path / f"{code}{number}" / "lock")
    assert len(os.listdir("/proc/self/fd")) == opened
