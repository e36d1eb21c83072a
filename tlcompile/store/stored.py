"""What lies in a set's folder, as its files say: for people, and for choosing what to evict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlcompile.store.about import ABOUT, About, read_about
from tlcompile.store.blocks import (
    Header,
    NotABlockError,
    is_block_name,
    listed,
    open_file,
    read_header,
    verify_block,
)
from tlcompile.store.lease import LOCK

_UNKNOWN: Final = "unknown"  # the vertex of a set whose about.json does not say


@dataclass(frozen=True)
class StoredSet:
    """A set on the disk; what is told of its rows is not verified.

    Attributes:
        about: What it holds; where about.json is damaged, the key and no more.
        rows: Of all blocks; one that two processes computed counts twice.
        num_bytes: On the disk.
        blocks: How many files hold the rows.
        seconds: Spent on computing.
        last_used: Seconds since 1970.
        folder: Where it is.
    """

    about: About
    rows: int
    num_bytes: int
    blocks: int
    seconds: float
    last_used: float
    folder: Path


@dataclass(frozen=True)
class BadFile:
    """A file of the store that is not what was written there."""

    path: Path
    reason: str


def look(folder: Path) -> StoredSet:
    """Read the first line of each block; what goes meanwhile is left out."""
    files = dict(_files(folder))
    headers = [header for name in files if (header := _header(folder / name)) is not None]
    times = {name: stat.st_mtime for name, stat in files.items()}
    return StoredSet(
        about=_about(folder / ABOUT) or About(folder.name, _UNKNOWN, (), "uint8"),
        rows=sum(header.rows for header in headers),
        num_bytes=sum(stat.st_size for stat in files.values()),
        blocks=len(headers),
        seconds=sum(header.seconds for header in headers),
        last_used=times.get(ABOUT, max(times.values(), default=0.0)),
        folder=folder,
    )


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for name in listed(folder):
        try:
            yield name, (folder / name).stat(follow_symlinks=False)
        except OSError:
            continue  # evicted meanwhile


def _header(path: Path) -> Header | None:
    try:
        return read_header(path) if is_block_name(path.name) else None
    except (OSError, NotABlockError):
        return None


def _about(path: Path) -> About | None:
    try:
        with open_file(path) as file:
            return read_about(file.read())
    except OSError:
        return None


def bad_files(folder: Path) -> Iterator[BadFile]:
    """Read every byte of a set; yield what is damaged, of another set, or not the store's."""
    for name in listed(folder):
        reason = _fault(folder / name)
        if reason:
            yield BadFile(folder / name, reason)


def _fault(path: Path) -> str:
    if path.name == LOCK or path.name.startswith("."):  # a temporary file; a sweep takes it
        return ""
    if path.name == ABOUT:
        about = _about(path)
        if about is None:
            return "it is not the text that was written"
        return "" if about.key == path.parent.name else f"it belongs to another set, {about.key}"
    if not is_block_name(path.name):
        return "it is none of the store's"
    try:
        key = verify_block(path).key
    except FileNotFoundError:
        return ""
    except NotABlockError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error}"
    return "" if key == path.parent.name else f"it belongs to another set, {key}"
