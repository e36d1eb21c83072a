"""Disks that fail, stop, forget or are small. All but the small one stand in for `system.calls`."""

from __future__ import annotations

import contextlib
import enum
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tlcompile.durable import system

METHODS = tuple(name for name in vars(system.SystemCalls) if not name.startswith("_"))


class Killed(BaseException):
    """The process is gone: nothing after this happens."""


@contextlib.contextmanager
def replaced_calls(calls: system.SystemCalls) -> Iterator[None]:
    before, system.calls = system.calls, calls
    try:
        yield
    finally:
        system.calls = before


def do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bytes stay with the kernel; what a power cut then leaves is asked in test_durable.py."""
    for name in ("fsync", "fsync_dir"):
        monkeypatch.setattr(system.SystemCalls, name, lambda *_values: None)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a real disk of 8 MiB; skip the test where that is not allowed."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no tmpfs here: {error}")
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # files may still be mapped


class CountingCalls(system.SystemCalls):
    """Fail the N-th call with an OSError once, or stop at it for good."""

    def __init__(self, number: int, fail: BaseException) -> None:
        self.number, self.fail = number, fail
        self.count = self.bytes_written = 0
        self.opened: set[int] = set()

    def close_all(self) -> None:
        for fd in self.opened:
            os.close(fd)
        self.opened.clear()

    def _step(self) -> None:
        self.count += 1
        dead = isinstance(self.fail, Killed) and self.count > self.number
        if self.count == self.number or dead:
            raise self.fail

    def _call(self, name: str, *values: Any) -> Any:
        self._step()
        result = getattr(system.SystemCalls, name)(self, *values)
        if name == "open":
            self.opened.add(result)
        elif name == "close":
            self.opened.discard(values[0])
        elif name == "write":
            self.bytes_written += result
        return result


def _counted(name: str) -> Any:
    return lambda self, *values: self._call(name, *values)


for _name in METHODS:
    setattr(CountingCalls, _name, _counted(_name))


class Mutant(enum.Enum):
    """A mistake in durable/, made here on the way to the disk."""

    NO_FSYNC = "no fsync"
    NO_FSYNC_DIR = "no fsync of folders"
    DELETE_OLD_FIRST = "delete old before new"


class Node:
    """A file or a folder: what the kernel has, and what the disk has."""

    def __init__(self, *, folder: bool) -> None:
        self.folder = folder
        self.data = self.safe_data = b""
        self.names: dict[str, Node] = {}
        self.safe_names: dict[str, Node] = {}


class PowerLossCalls(CountingCalls):
    """Do every call on the real disk and on a model of one that forgets what was not fsynced."""

    def __init__(self, root: Path, number: int, mutant: Mutant | None) -> None:
        super().__init__(10**9, Killed())
        self.root, self.kill_at, self.mutant = root, number, mutant
        self.disk = Node(folder=True)
        self.files: dict[int, Node] = {}

    def arm(self) -> None:
        """Count from here: what was written until now is on the disk."""
        self.count, self.number = 0, self.kill_at

    def _node(self, path: Path) -> Node:
        node = self.disk
        for part in path.relative_to(self.root).parts:
            node = node.names[part]
        return node

    def _call(self, name: str, *values: Any) -> Any:
        if (name, self.mutant) == ("replace", Mutant.DELETE_OLD_FIRST) and ".old." in str(values):
            self._remove_instead(values[0])
            return None
        result = super()._call(name, *values)
        getattr(self, f"_model_{name}")(result, *values)
        return result

    def _remove_instead(self, folder: Path) -> None:
        for inside in folder.iterdir():
            self._call("unlink", inside)
        self._call("rmdir", folder)

    def _model_open(self, fd: int, path: Path, _flags: int) -> None:
        self.files[fd] = self._node(path.parent).names.setdefault(path.name, Node(folder=False))

    def _model_write(self, count: int, fd: int, data: memoryview) -> None:
        self.files[fd].data += bytes(data[:count])

    def _model_fsync(self, _result: None, fd: int) -> None:
        if self.mutant is not Mutant.NO_FSYNC:
            self.files[fd].safe_data = self.files[fd].data

    def _model_close(self, _result: None, fd: int) -> None:
        del self.files[fd]

    def _model_replace(self, _result: None, source: Path, target: Path) -> None:
        self._node(target.parent).names[target.name] = self._node(source)
        del self._node(source.parent).names[source.name]

    def _model_link(self, _result: None, source: Path, target: Path) -> None:
        self._node(target.parent).names[target.name] = self._node(source)

    def _model_fsync_dir(self, _result: None, path: Path) -> None:
        if self.mutant is not Mutant.NO_FSYNC_DIR:
            self._node(path).safe_names = dict(self._node(path).names)

    def _model_mkdir(self, _result: None, path: Path) -> None:
        self._node(path.parent).names[path.name] = Node(folder=True)

    def _model_unlink(self, _result: None, path: Path) -> None:
        del self._node(path.parent).names[path.name]

    _model_rmdir = _model_unlink

    def _model_utime(self, _result: None, path: Path) -> None:
        """Times are advice."""

    def _model_flock(self, _result: None, fd: int, operation: int) -> None:
        """A lock is not on the disk."""

    def disk_after_power_loss(self, place: Path, early: bool, early_inside: bool) -> None:
        """Write what the disk holds.

        A journal may write names long before the bytes; `early` says so of the names in the root,
        `early_inside` of those in the folders below: they do not wait for each other.
        """
        _restore(self.disk, place, early, early_inside)


def _restore(node: Node, place: Path, early: bool, early_inside: bool) -> None:
    if not node.folder:
        place.write_bytes(node.safe_data)
        return
    place.mkdir()
    for name, inside in (node.names if early else node.safe_names).items():
        _restore(inside, place / name, early_inside, early_inside)
