"""A file that several generations hold: written once, and other names of the same file after that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tlcompile.durable import system
from tlcompile.durable.files import writing
from tlcompile.durable.manifest import Entry, entry_of
from tlcompile.durable.system import typed


class SharedFile:
    """Content that several generations hold; on the disk it lies once, under hard links.

    It is written again where the disk has no links, and where the earlier file is gone or changed.
    Copies and archives of a folder have all of it; removing one leaves the others whole. No file of
    a generation is ever written into, so nothing of ours changes one through another.

    Args:
        make: Gives the content; called each time that it has to be written.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._path: Path | None = None
        self._entry: Entry | None = None
        self._identity: tuple[int, ...] | None = None

    def put(self, place: Path, named: Path, needed: int) -> Entry:
        """Let it stand at a place, on the disk as soon as its folder is; return what identifies it.

        Args:
            place: Where there is nothing yet.
            named: What errors speak of.
            needed: Bytes of what is written beside it.

        Raises:
            RunError: As `write_file`.
        """
        entry = self._linked(place)
        if entry is None:
            data = self._make()
            with writing(place, named, needed + len(data)) as stream:
                stream.write(data)
            entry = entry_of(data)
        with typed(named, needed):
            self._entry, self._identity = entry, _identity(place)
        return entry

    def stands(self, path: Path) -> None:
        """Note where the file of the last `put` stands for good."""
        self._path = path

    def _linked(self, place: Path) -> Entry | None:
        """Give the earlier file another name; None: it cannot have one, for whatever reason."""
        try:
            if self._path is None or _identity(self._path) != self._identity:
                return None
            system.calls.link(self._path, place)
        except OSError:
            return None
        return self._entry


def _identity(path: Path) -> tuple[int, ...]:
    """Return what tells a file from others, and from itself after a change."""
    found = os.stat(path)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
