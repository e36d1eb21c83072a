"""The table of system calls that change the disk, and what their failures mean."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tlcompile.errors.run import DiskFullError, NoPermissionError, RunError, WriteFailedError

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM}


class SystemCalls:
    """Every call that changes the disk; tests replace it to fail or stop the N-th one."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file for writing."""
        return os.open(path, flags | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def write(self, fd: int, data: memoryview) -> int:
        """Write some of the data; return how much."""
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        """Bring a file's bytes to the disk."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a file."""
        os.close(fd)

    def replace(self, source: Path, target: Path) -> None:
        """Rename; a file at the target is replaced, a folder with content is not."""
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, where there is nothing yet."""
        os.link(source, target)

    def fsync_dir(self, path: Path) -> None:
        """Bring a folder's names to the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def mkdir(self, path: Path) -> None:
        """Make one folder."""
        os.mkdir(path)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def utime(self, path: Path) -> None:
        """Set a file's time to now."""
        os.utime(path)

    def flock(self, fd: int, operation: int) -> None:
        """Lock a file for all processes of this machine, or give it free; never waits."""
        fcntl.flock(fd, operation | fcntl.LOCK_NB)


calls = SystemCalls()  # always read as `system.calls`, so that a test can put another one here


def open_to_read(path: str, flags: int) -> int:
    """Open for reading at once, as `opener` of Python's `open`.

    A pipe would else be opened when somebody writes to it, which may be never; files do not differ.
    """
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def typed(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn an OSError into the RunError that names the file, the room and the next step."""
    try:
        yield
    except OSError as error:
        raise _run_error(error, path, needed) from error


def _run_error(error: OSError, path: Path, needed: int) -> RunError:
    if error.errno in _FULL:
        return DiskFullError(path=path, needed_bytes=needed, free_bytes=_free_bytes(path.parent))
    if error.errno in _FORBIDDEN:
        return NoPermissionError(path=path)
    return WriteFailedError(path=path, reason=reason(error))


def reason(error: OSError) -> str:
    """Word an OSError without its path."""
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"{name}: {error.strerror or error}"


def _free_bytes(folder: Path) -> int | None:
    folder = next((path for path in (folder, *folder.parents) if os.path.exists(path)), folder)
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def quietly(call: Callable[..., None], *values: object) -> None:
    """Clean up on the way out; what fails is left for `sweep_temporaries`."""
    try:
        call(*values)
    except (OSError, RunError):
        return
