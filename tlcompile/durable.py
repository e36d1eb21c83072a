"""Write files that must survive: kills, full disks and power cuts. Knows nothing of what is in them.

The only module of tlcompile that writes a file (tests/test_architecture.py). A file is written
under a temporary name beside its place, flushed to the disk, renamed, and the folder is flushed:
at every instant the old content or the new one stands there, whole. A *generation* is a folder of
files that belong together; its manifest.json holds the size and SHA-256 of each and is written
last, so a folder that verifies is complete.

Names of leftovers, which `sweep_temporaries` clears: .<name>.<tmp|old>.<host>.<pid>.<random>
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

from tlcompile.errors.run import (
    DamagedFileError,
    DiskFullError,
    NoPermissionError,
    RunError,
    WriteFailedError,
)

MANIFEST: Final = "manifest.json"
SWAP_TRIES: Final = 16  # another process can put its generation in place between our two renames

_HOST: Final = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
_LEFTOVER: Final = re.compile(
    r"\.(?P<name>.+)\.(?P<kind>tmp|old)\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.[0-9a-f]{16}"
)
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM}
_OCCUPIED: Final = {errno.ENOTEMPTY, errno.EEXIST}  # systems differ

_in_use: set[str] = set()  # leftovers-to-be of this process; its pid may have had another owner


class SystemCalls:
    """Every call that changes the disk; a test puts another one at `_os` to fail or stop the N-th."""

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


_os = SystemCalls()


# Files


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file; whatever happens, the old or the new content stands there.

    Raises:
        DiskFullError: No room, or no quota.
        NoPermissionError: The folder may not be written.
        WriteFailedError: The operating system gave another reason.
    """
    with _replacing(path, len(data)) as stream:
        stream.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a stream whose bytes take the file's place when the block ends well.

    When the block raises, the file stays as it was. The stream can write and nothing else.

    Raises:
        RunError: As `write_file`; exceptions of the block itself pass through as they are.
    """
    with _replacing(path, 0) as stream:
        yield stream


@contextmanager
def _replacing(path: Path, needed: int) -> Iterator[BinaryIO]:
    make_folder(path.parent)
    with _leftover(path, "tmp") as temporary:
        try:
            with _writing(temporary, path, needed) as stream:
                yield cast(BinaryIO, stream)
            with _typed(path, needed):
                _os.replace(temporary, path)
        except BaseException:
            _quietly(_os.unlink, temporary)
            raise
        with _typed(path, needed):
            _os.fsync_dir(path.parent)


@contextmanager
def _writing(place: Path, named: Path, needed: int) -> Iterator[_Stream]:
    """Open a new file, flush it to the disk at the end, close it; errors speak of `named`."""
    with _typed(named, needed):
        fd = _os.open(place, os.O_CREAT | os.O_EXCL)
    stream = _Stream(fd, named, needed)
    try:
        yield stream
        with _typed(named, stream.needed):
            _os.fsync(fd)  # once: after a failure the kernel may have dropped the bytes
    except BaseException:
        _quietly(_os.close, fd)
        raise
    with _typed(named, stream.needed):
        _os.close(fd)  # network disks report a full disk here


class _Stream(io.BufferedIOBase):
    """A writer without a buffer: after `write` returns, the kernel has all of it.

    It has no `fileno`, so that numpy does not write past the table of system calls.
    """

    def __init__(self, fd: int, path: Path, needed: int) -> None:
        self._fd, self._path = fd, path
        self._written = 0
        self.needed = needed

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        self.needed = max(self.needed, self._written + len(view))
        with _typed(self._path, self.needed):
            _write_all(self._fd, view)
        self._written += len(view)
        return len(view)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        try:
            count = _os.write(fd, view)
        except InterruptedError:
            continue  # Python retries by itself, except where the handler raises
        if count <= 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[count:]


def append_line(path: Path, text: str, *, sync: bool = False) -> None:
    """Append one line to a log; `sync` waits for the disk.

    A line that does not fit is taken back. After a torn one, the next begins on a line of its own.

    Raises:
        RunError: As `write_file`.
    """
    assert "\n" not in text, "one line at a time"
    make_folder(path.parent)
    data = f"{text}\n".encode()
    with _typed(path, len(data)):
        fd = _os.open(path, os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            line = b"\n" + data if size and _last_byte(path) != b"\n" else data
            _append(fd, size, line, sync)
        except BaseException:
            _quietly(_os.close, fd)
            raise
        _os.close(fd)
        if sync and not size:
            _os.fsync_dir(path.parent)


def _append(fd: int, size: int, line: bytes, sync: bool) -> None:
    try:
        _write_all(fd, memoryview(line))
        if sync:
            _os.fsync(fd)
    except OSError:
        _quietly(_os.truncate, fd, size)
        raise


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; each new name is brought to the disk.

    Raises:
        RunError: As `write_file`.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    with _typed(path):
        try:
            _os.mkdir(path)
        except FileExistsError:
            if not path.is_dir():
                raise
        _os.fsync_dir(path.parent)


# Generations


def commit_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write files that belong together as one folder; a generation that stands there is replaced.

    At every instant one complete generation is at `target`, or `recover(target)` puts it there.

    Args:
        target: The folder's name.
        files: Content by plain file name; `manifest.json` is ours.

    Raises:
        RunError: As `write_file`; the old generation stays.
    """
    assert all(map(_is_plain, files)), f"plain names only: {list(files)}"
    make_folder(target.parent)
    needed = sum(map(len, files.values()))
    with _leftover(target, "tmp") as temporary:
        try:
            _fill(temporary, target, files, needed)
            asides = _swap_in(temporary, target)
        except BaseException:
            _quietly(remove_folder, temporary)
            raise
        with _typed(target, needed):
            _os.fsync_dir(target.parent)
        for aside in asides:
            _quietly(remove_folder, aside)  # the new one is safe; `recover` clears what is left


def _fill(folder: Path, target: Path, files: Mapping[str, bytes], needed: int) -> None:
    with _typed(target, needed):
        _os.mkdir(folder)
    entries = {name: _entry(data) for name, data in sorted(files.items())}
    for name, data in [*files.items(), (MANIFEST, _manifest_bytes(entries))]:
        with _writing(folder / name, target / name, needed) as stream:
            stream.write(data)
    with _typed(target, needed):
        _os.fsync_dir(folder)


def _swap_in(temporary: Path, target: Path) -> list[Path]:
    """Rename a finished folder to its place; return where the generations before it went."""
    asides: list[Path] = []
    for _ in range(SWAP_TRIES):
        try:
            _os.replace(temporary, target)
            return asides
        except OSError as error:
            if error.errno not in _OCCUPIED:
                _put_back(asides, target)
                raise _run_error(error, target) from error
        aside = _beside(target, "old")
        with _typed(target):
            try:
                _os.replace(target, aside)
            except FileNotFoundError:
                continue  # another process has just put it aside
        asides.append(aside)
    _put_back(asides, target)
    raise WriteFailedError(path=target, reason="other processes keep replacing it")


def _put_back(asides: list[Path], target: Path) -> None:
    for aside in reversed(asides):
        _quietly(_os.replace, aside, target)


def recover(target: Path) -> bool:
    """Finish what a killed `commit_folder` left; call it before reading a generation.

    The newest complete generation ends at `target`, and what older or broken ones left is removed.

    Returns:
        True when a folder stands at `target`.

    Raises:
        RunError: The disk did not let it.
    """
    asides = [path for path in _leftovers(target.parent, "old") if _owner(path) == target.name]
    for aside in sorted(asides, key=_written_at, reverse=True):
        if not target.is_dir() and _is_complete(aside):
            with _typed(target):
                _os.replace(aside, target)
                _os.fsync_dir(target.parent)
        elif target.is_dir():
            remove_folder(aside)
    return target.is_dir()


def verify_folder(target: Path) -> dict[str, int]:
    """Check every file of a generation; return the size of each by name.

    Raises:
        DamagedFileError: A file is gone, or differs in size or digest.
        NoPermissionError: A file may not be read.
    """
    entries = _entries(target)
    for name, entry in entries.items():
        _check(target / name, entry, _digest_file(target / name))
    return {name: size for name, (size, _) in entries.items()}


def read_verified(target: Path, name: str) -> bytes:
    """Read one file of a generation: the bytes that are checked are the bytes returned.

    Raises:
        DamagedFileError: As `verify_folder`, for this file or the manifest.
        NoPermissionError: The file may not be read.
    """
    entries = _entries(target)
    if name not in entries:
        raise DamagedFileError(
            path=target / name, expected=f"one of: {', '.join(entries)}", found="no such name"
        )
    data = _read(target / name)
    _check(target / name, entries[name], _entry(data))
    return data


def _entry(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def _digest_file(path: Path) -> tuple[int, str]:
    with _reading(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _check(path: Path, expected: tuple[int, str], found: tuple[int, str]) -> None:
    if expected != found:
        raise DamagedFileError(path=path, expected=_worded(expected), found=_worded(found))


def _worded(entry: tuple[int, str]) -> str:
    return f"{entry[0]:,} bytes, sha256 {entry[1]}"


def _manifest_bytes(entries: Mapping[str, tuple[int, str]]) -> bytes:
    """Write a manifest that holds its own digest: there is one spelling of it and no other."""
    files = {name: {"size": size, "sha256": digest} for name, (size, digest) in entries.items()}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": digest}, indent=1).encode() + b"\n"


def _entries(target: Path) -> dict[str, tuple[int, str]]:
    path = target / MANIFEST
    data = _read(path)
    try:
        files = json.loads(data)["files"]
        entries = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
        intact = _manifest_bytes(entries) == data and all(map(_is_plain, entries))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        found = f"{len(data):,} bytes that are not one"
        raise DamagedFileError(path=path, expected="a manifest with its own digest", found=found)
    return entries


def _is_plain(name: str) -> bool:
    return bool(name) and not name.startswith(".") and "/" not in name and name != MANIFEST


def _is_complete(folder: Path) -> bool:
    try:
        verify_folder(folder)
    except RunError:
        return False
    return True


def _read(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NoPermissionError(path=path) from error
    except OSError as error:
        found = "nothing there" if isinstance(error, FileNotFoundError) else _reason(error)
        raise DamagedFileError(path=path, expected="a file", found=found) from error


# Leftovers


def sweep_temporaries(folder: Path) -> None:
    """Clear what killed processes of this host left; call it at the start of a run.

    Never touches what a living process or another host is writing. A generation that was put
    aside goes back to its place when that place is empty.

    Raises:
        RunError: The disk did not let it.
    """
    for path in _leftovers(folder, "tmp"):
        remove_folder(path) if path.is_dir() else _remove_file(path)
    for target in {folder / _owner(path) for path in _leftovers(folder, "old")}:
        recover(target)


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; the manifest goes first, so no half looks whole.

    Raises:
        RunError: The disk did not let it.
    """
    _remove_file(folder / MANIFEST)
    with _typed(folder):
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in inside:
        remove_folder(path) if path.is_dir() and not path.is_symlink() else _remove_file(path)
    with _typed(folder):
        _ignore_missing(_os.rmdir, folder)


def _remove_file(path: Path) -> None:
    with _typed(path):
        _ignore_missing(_os.unlink, path)


def _ignore_missing(remove: Callable[[Path], None], path: Path) -> None:
    try:
        remove(path)
    except (FileNotFoundError, NotADirectoryError):
        return  # another process sweeps too


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}.{_HOST}.{os.getpid()}.{secrets.token_hex(8)}")


@contextmanager
def _leftover(path: Path, kind: str) -> Iterator[Path]:
    beside = _beside(path, kind)
    _in_use.add(beside.name)
    try:
        yield beside
    finally:
        _in_use.discard(beside.name)


def _leftovers(folder: Path, kind: str) -> list[Path]:
    """List what a dead process of this host left in a folder."""
    with _typed(folder):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    parts = [(name, _LEFTOVER.fullmatch(name)) for name in names]
    return [folder / name for name, part in parts if part and part["kind"] == kind and _dead(part)]


def _dead(part: re.Match[str]) -> bool:
    if part["host"] != _HOST or part[0] in _in_use:
        return False
    if int(part["pid"]) == os.getpid():
        return True  # an earlier process of the same number: containers count from 1
    try:
        os.kill(int(part["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _owner(leftover: Path) -> str:
    part = _LEFTOVER.fullmatch(leftover.name)
    assert part is not None
    return part["name"]


def _written_at(folder: Path) -> int:
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0


# Errors


@contextmanager
def _typed(path: Path, needed: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _run_error(error, path, needed) from error


def _run_error(error: OSError, path: Path, needed: int = 0) -> RunError:
    if error.errno in _FULL:
        return DiskFullError(path=path, needed_bytes=needed, free_bytes=_free_bytes(path.parent))
    if error.errno in _FORBIDDEN:
        return NoPermissionError(path=path)
    return WriteFailedError(path=path, reason=_reason(error))


def _reason(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"{name}: {error.strerror or error}"


def _free_bytes(folder: Path) -> int | None:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _quietly(call: Callable[..., None], *values: object) -> None:
    """Clean up on the way out; what fails is left for `sweep_temporaries`."""
    try:
        call(*values)
    except (OSError, RunError):
        return
