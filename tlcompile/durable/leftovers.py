"""Names beside a file: what is being written, what was put aside, and whose they are.

A name is .<name>.<tmp|old>.<host>.<pid>.<random>, so that two machines on one network disk, or two
containers with equal pids, never take each other's.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from tlcompile.durable import system
from tlcompile.durable.system import typed
from tlcompile.errors.run import WriteFailedError

Kind = Literal["tmp", "old"]

OCCUPIED: Final = {errno.ENOTEMPTY, errno.EEXIST}  # what systems call a folder with content
REMOVE_TRIES: Final = 16  # who looked the folder up before it was renamed may still put files there

HOST: Final = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "host"
_LEFTOVER: Final = re.compile(
    r"\.(?P<owner>.+)\.(?P<kind>tmp|old)\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.[0-9a-f]{16}"
)

_in_use: set[str] = set()  # of this process; without it an own pid would always look alive


def beside(path: Path, kind: Kind) -> Path:
    """Return a new name in the same folder."""
    return path.with_name(f".{path.name}.{kind}.{HOST}.{os.getpid()}.{secrets.token_hex(8)}")


@contextmanager
def temporary_for(path: Path) -> Iterator[Path]:
    """Reserve a name to write under; inside the block no sweep of this process takes it."""
    temporary = beside(path, "tmp")
    _in_use.add(temporary.name)
    try:
        yield temporary
    finally:
        _in_use.discard(temporary.name)


def leftovers(folder: Path, kind: Kind) -> list[tuple[Path, Path]]:
    """List what dead processes of this host left: (leftover, the path it belongs to)."""
    with typed(folder):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    parts = [part for part in map(_LEFTOVER.fullmatch, names) if part and part["kind"] == kind]
    return [(folder / part[0], folder / part["owner"]) for part in parts if _is_dead(part)]


def _is_dead(part: re.Match[str]) -> bool:
    if part["host"] != HOST or part[0] in _in_use:
        return False
    if int(part["pid"]) == os.getpid():
        return True  # an earlier process of the same number: in a container every run may be 1
    try:
        os.kill(int(part["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there; links are removed, not followed.

    The manifest goes first, so that half a generation never looks like a whole one.

    Raises:
        RunError: The disk did not let it.
    """
    with typed(folder):
        inside = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in sorted(inside, key=lambda name: name != "manifest.json"):
        remove(folder / name)
    with typed(folder):
        _ignore_missing(system.calls.rmdir, folder)


def remove_at_once(folder: Path) -> None:
    """Remove a folder so that nobody sees half of it: it is renamed first.

    Raises:
        RunError: The disk did not let it; what is left has a name that a sweep takes.
    """
    with temporary_for(folder) as temporary:
        with typed(folder):
            system.calls.replace(folder, temporary)
            system.calls.fsync_dir(folder.parent)
        for tries_left in reversed(range(REMOVE_TRIES)):
            try:
                remove_folder(temporary)
                return
            except WriteFailedError as error:
                occupied = getattr(error.__cause__, "errno", None) in OCCUPIED
                if not (occupied and tries_left):
                    raise


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there.

    Raises:
        RunError: The disk did not let it.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        remove_folder(path)
    else:
        with typed(path):
            _ignore_missing(system.calls.unlink, path)


def _ignore_missing(call: Callable[[Path], None], path: Path) -> None:
    try:
        call(path)
    except FileNotFoundError:
        return  # another process sweeps too
