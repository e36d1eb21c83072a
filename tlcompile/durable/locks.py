"""Locks between processes: advice that saves work. Nothing may depend on one for being right.

On some network disks a lock says yes to everyone. What a process holds goes with the process.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from tlcompile.durable import system
from tlcompile.durable.files import make_folder
from tlcompile.durable.system import quietly, typed

_TRIES = 16  # the file can be removed between opening and locking it, again and again


class Lock:
    """A lock that is held until the `with` block ends."""

    def __init__(self, fd: int, path: Path | None = None) -> None:
        self._fd, self._path = fd, path

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path is not None:
            quietly(system.calls.unlink, self._path)
        # Closing alone would not do while a forked child has the file open, too.
        quietly(system.calls.flock, self._fd, fcntl.LOCK_UN)
        quietly(system.calls.close, self._fd)


def take_lock(path: Path, *, remove: bool = False) -> Lock | None:
    """Lock a file at once, or return None when another has it.

    Args:
        path: Of the file; it is made if absent.
        remove: Whether the file goes with the lock; else it stays where it is.

    Raises:
        RunError: It can be neither made nor locked: this disk, or this user, has no locks here.
    """
    for _ in range(_TRIES):
        make_folder(path.parent)
        with typed(path):
            fd = system.calls.open(path, os.O_CREAT)
            try:
                system.calls.flock(fd, fcntl.LOCK_EX)
                if _is_at(path, fd):
                    return Lock(fd, path if remove else None)
            except BlockingIOError:
                quietly(system.calls.close, fd)
                return None
            except BaseException:
                quietly(system.calls.close, fd)
                raise
        quietly(system.calls.close, fd)  # removed while we were opening it: the next one counts
    return None


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
