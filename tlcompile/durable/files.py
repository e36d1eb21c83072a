"""Replace a file as a whole, or add a line to a log."""

from __future__ import annotations

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from tlcompile.durable import system
from tlcompile.durable.leftovers import temporary_for
from tlcompile.durable.system import quietly, typed


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file; whatever happens, the old or the new content stands there.

    Folders above it are made.

    Raises:
        DiskFullError: No room, or no quota.
        NoPermissionError: The folder may not be written.
        WriteFailedError: The operating system gave another reason.
    """
    with _replacing(path, len(data)) as stream:
        stream.write(data)


@contextmanager
def replacing(path: Path, needed: int = 0) -> Iterator[BinaryIO]:
    """Open a stream whose bytes take the file's place when the block ends well.

    When the block raises, the file stays as it was. The stream can write and nothing else.

    Args:
        path: The file's name.
        needed: Bytes that it will have, where they are known: a full disk is told with them.

    Raises:
        RunError: As `write_file`; exceptions of the block itself pass through as they are.
    """
    with _replacing(path, needed) as stream:
        yield cast(BinaryIO, stream)


@contextmanager
def _replacing(path: Path, needed: int) -> Iterator[WriteStream]:
    make_folder(path.parent)
    with temporary_for(path) as temporary:
        try:
            with writing(temporary, path, needed) as stream:
                yield stream
            with typed(path, stream.needed):
                system.calls.replace(temporary, path)
        except BaseException:
            quietly(system.calls.unlink, temporary)
            raise
        with typed(path, stream.needed):
            system.calls.fsync_dir(path.parent)


@contextmanager
def writing(place: Path, named: Path, needed: int) -> Iterator[WriteStream]:
    """Open a new file, bring it to the disk at the end and close it; errors speak of `named`."""
    with typed(named, needed):
        fd = system.calls.open(place, os.O_CREAT | os.O_EXCL)
    stream = WriteStream(fd, named, needed)
    try:
        yield stream
        with typed(named, stream.needed):
            system.calls.fsync(fd)  # once: after a failure the kernel may have dropped the bytes
    except BaseException:
        quietly(system.calls.close, fd)
        raise
    with typed(named, stream.needed):
        system.calls.close(fd)  # network disks report a full disk here


class WriteStream(io.BufferedIOBase):
    """A writer without a buffer: when `write` returns, the kernel has all of it.

    It has no `fileno`, so that numpy does not write past the table of system calls.
    """

    def __init__(self, fd: int, path: Path, needed: int) -> None:
        self._fd, self._path = fd, path
        self._written = 0
        self.needed = needed

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, data: object, /) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        self.needed = max(self.needed, self._written + len(view))
        with typed(self._path, self.needed):
            _write_all(self._fd, view)
        self._written += len(view)
        return len(view)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        try:
            count = system.calls.write(fd, view)
        except InterruptedError:
            continue
        if count <= 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[count:]


def append_line(path: Path, text: str, *, sync: bool = False) -> None:
    """Append one line to a log; `sync` waits for the disk.

    A line that fails is taken back. After a torn one, the next begins on a line of its own.

    Raises:
        RunError: As `write_file`.
    """
    assert "\n" not in text, "one line at a time"
    make_folder(path.parent)
    data = f"{text}\n".encode()
    with typed(path, len(data)):
        fd = system.calls.open(path, os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            torn = size and _last_byte(path) != b"\n"
            _append(fd, size, b"\n" + data if torn else data, sync)
        except BaseException:
            quietly(system.calls.close, fd)
            raise
        system.calls.close(fd)
        if sync and not size:
            system.calls.fsync_dir(path.parent)


def _append(fd: int, size: int, line: bytes, sync: bool) -> None:
    try:
        _write_all(fd, memoryview(line))
        if sync:
            system.calls.fsync(fd)
    except OSError:
        quietly(system.calls.truncate, fd, size)
        raise


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


@contextmanager
def open_log(path: Path) -> Iterator[int]:
    """Open a file that another process appends to what it prints; yields a file descriptor.

    Raises:
        RunError: It cannot be opened.
    """
    make_folder(path.parent)
    with typed(path):
        fd = system.calls.open(path, os.O_CREAT | os.O_APPEND)
    try:
        yield fd
    finally:
        quietly(system.calls.close, fd)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; each new name is brought to the disk.

    Raises:
        RunError: As `write_file`.
    """
    if os.path.isdir(path):
        return
    make_folder(path.parent)
    with typed(path):
        try:
            system.calls.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        system.calls.fsync_dir(path.parent)


def mark_used(path: Path) -> None:
    """Note that a file has been used now, in its time of change.

    Raises:
        RunError: As `write_file`.
    """
    with typed(path):
        system.calls.utime(path)


def put_aside(path: Path, folder: Path) -> Path | None:
    """Move a file out of the way, under a name of its own; None when another process was quicker.

    Raises:
        RunError: As `write_file`.
    """
    make_folder(folder)
    aside = folder / f"{path.name}.{secrets.token_hex(4)}"
    with typed(path):
        try:
            system.calls.replace(path, aside)
        except FileNotFoundError:
            return None
        system.calls.fsync_dir(folder)
        system.calls.fsync_dir(path.parent)
    return aside
