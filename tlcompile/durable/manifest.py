"""What a generation holds, with digests: torch.load and safetensors do not notice a flipped bit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tlcompile.durable.system import reason
from tlcompile.errors.run import DamagedFileError, NoPermissionError, RunError

MANIFEST: Final = "manifest.json"


class Entry(NamedTuple):
    """What identifies a file's content."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.size:,} bytes, sha256 {self.sha256}"


def verify_folder(target: Path) -> dict[str, int]:
    """Check every file of a generation; return the size of each by name.

    Raises:
        DamagedFileError: A file is gone, or differs in size or digest.
        NoPermissionError: A file may not be read.
    """
    entries = read_manifest(target)
    for name, entry in entries.items():
        _check(target / name, entry, _entry_of_file(target / name))
    return {name: entry.size for name, entry in entries.items()}


def read_verified(target: Path, name: str) -> bytes:
    """Read one file of a generation; the bytes that are checked are the bytes returned.

    Raises:
        DamagedFileError: As `verify_folder`, for this file or the manifest.
        NoPermissionError: The file may not be read.
    """
    entries = read_manifest(target)
    path = target / name
    if name not in entries:
        raise DamagedFileError(path=path, expected=f"one of: {list(entries)}", found="no such name")
    data = _read(path)
    _check(path, entries[name], entry_of(data))
    return data


def read_manifest(target: Path) -> dict[str, Entry]:
    """Return what identifies each file of a generation, by name, as it was written.

    Raises:
        DamagedFileError: The manifest is gone, or is not as it was written.
        NoPermissionError: It may not be read.
    """
    path = target / MANIFEST
    data = _read(path)
    try:
        files = json.loads(data)["files"]
        entries = {name: Entry(file["size"], file["sha256"]) for name, file in files.items()}
        intact = manifest_bytes(entries) == data and all(map(is_plain, entries))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        found = f"{len(data):,} bytes that are not it"
        raise DamagedFileError(path=path, expected="the manifest, as written", found=found)
    return entries


def is_complete(folder: Path) -> bool:
    """Say whether all of a generation is there, as it was written."""
    try:
        verify_folder(folder)
    except RunError:
        return False
    return True


def entry_of(data: bytes) -> Entry:
    """Identify a content."""
    return Entry(len(data), hashlib.sha256(data).hexdigest())


def manifest_bytes(entries: Mapping[str, Entry]) -> bytes:
    """Write a manifest with a digest of itself; it has one spelling, so every flipped bit shows."""
    files = {name: entry._asdict() for name, entry in entries.items()}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": digest}, indent=1).encode() + b"\n"


def is_plain(name: str) -> bool:
    """Say whether a name may stand in a manifest: no path, nothing hidden, not the manifest."""
    return not name.startswith(".") and os.path.basename(name) == name not in ("", MANIFEST)


def _entry_of_file(path: Path) -> Entry:
    with _reading(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(file.tell(), digest)


def _check(path: Path, expected: Entry, found: Entry) -> None:
    if expected != found:
        raise DamagedFileError(path=path, expected=str(expected), found=str(found))


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
        found = "nothing" if isinstance(error, FileNotFoundError) else reason(error)
        raise DamagedFileError(
            path=path, expected="a file that can be read", found=found
        ) from error
