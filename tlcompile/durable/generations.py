"""Commit several files at once, and finish or undo what a killed commit left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tlcompile.durable import system
from tlcompile.durable.files import make_folder, writing
from tlcompile.durable.leftovers import (
    OCCUPIED,
    beside,
    leftovers,
    remove,
    remove_folder,
    temporary_for,
)
from tlcompile.durable.manifest import (
    MANIFEST,
    Entry,
    entry_of,
    is_complete,
    is_plain,
    manifest_bytes,
)
from tlcompile.durable.shared_file import SharedFile
from tlcompile.durable.system import quietly, typed
from tlcompile.errors.run import WriteFailedError

SWAP_TRIES: Final = 16  # another process can put its generation in place between our two renames

Content = bytes | SharedFile


def commit_folder(target: Path, files: Mapping[str, Content]) -> None:
    """Write files that belong together as one folder; a generation that stands there is replaced.

    At every instant one complete generation is at `target`, or `recover(target)` puts it there.

    Args:
        target: The folder's name.
        files: Content by plain file name; manifest.json is ours and written last. A SharedFile is
            linked where another generation has it already.

    Raises:
        RunError: As `write_file`; the old generation stays.
    """
    assert all(map(is_plain, files)), f"plain names only: {list(files)}"
    make_folder(target.parent)
    needed = sum(len(data) for data in files.values() if isinstance(data, bytes))
    with temporary_for(target) as temporary:
        try:
            _fill(temporary, target, files, needed)
            with typed(target, needed):
                asides = _swap_in(temporary, target)
        except BaseException:
            quietly(remove_folder, temporary)
            raise
    with typed(target, needed):
        system.calls.fsync_dir(target.parent)
    for name, data in files.items():
        if isinstance(data, SharedFile):
            data.stands(target / name)
    for aside in asides:
        quietly(remove_folder, aside)  # the new one is safe; `recover` clears what is left


def _fill(folder: Path, target: Path, files: Mapping[str, Content], needed: int) -> None:
    with typed(target, needed):
        system.calls.mkdir(folder)
    entries: dict[str, Entry] = {}
    for name, data in files.items():
        entries[name] = _put(data, folder / name, target / name, needed)
        needed += entries[name].size if isinstance(data, SharedFile) else 0  # unknown before
    manifest = manifest_bytes(dict(sorted(entries.items())))
    _put(manifest, folder / MANIFEST, target / MANIFEST, needed)
    with typed(target, needed):
        system.calls.fsync_dir(folder)


def _put(data: Content, place: Path, named: Path, needed: int) -> Entry:
    if isinstance(data, SharedFile):
        return data.put(place, named, needed)
    with writing(place, named, needed) as stream:
        stream.write(data)
    return entry_of(data)


def _swap_in(temporary: Path, target: Path) -> list[Path]:
    """Rename a finished folder to its place; return where the ones that stood there went."""
    asides: list[Path] = []
    try:
        for _ in range(SWAP_TRIES):
            if _moved(temporary, target):
                return asides
            aside = beside(target, "old")
            if _moved(target, aside):
                asides.append(aside)
        raise WriteFailedError(path=target, reason="other processes keep replacing it")
    except BaseException:
        for aside in reversed(asides):
            quietly(system.calls.replace, aside, target)
        raise


def _moved(source: Path, target: Path) -> bool:
    """Rename a folder; False when the target is occupied or the source has just been taken."""
    try:
        system.calls.replace(source, target)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in OCCUPIED:
            return False
        raise
    return True


def recover(target: Path) -> bool:
    """Finish what a killed `commit_folder` left; call it before reading a generation.

    What was put aside goes back when no complete generation stands at `target`; a damaged one that
    stands there is kept as `<name>.damaged.<random>`. Else what was put aside is removed.

    Returns:
        True when a folder stands at `target`.

    Raises:
        RunError: The disk did not let it.
    """
    asides = [left for left, owner in leftovers(target.parent, "old") if owner == target]
    complete = bool(asides) and is_complete(target)
    for aside in sorted(asides, key=_written_at, reverse=True):
        if complete:
            remove_folder(aside)
        elif is_complete(aside):
            _put_back(aside, target)
            complete = True
    return complete or target.is_dir()


def _put_back(aside: Path, target: Path) -> None:
    with typed(target):
        if target.is_dir():
            random = aside.name.rpartition(".")[2]
            system.calls.replace(target, target.with_name(f"{target.name}.damaged.{random}"))
        system.calls.replace(aside, target)
        system.calls.fsync_dir(target.parent)


def _written_at(folder: Path) -> int:
    try:
        return (folder / MANIFEST).stat().st_mtime_ns
    except OSError:
        return 0


def sweep_temporaries(folder: Path) -> None:
    """Clear what killed processes of this host left; call it at the start of a run.

    What a living process or another host is writing is never touched. A generation that was put
    aside goes back when its place is empty.

    Raises:
        RunError: The disk did not let it.
    """
    for left, _ in leftovers(folder, "tmp"):
        remove(left)
    for target in sorted({owner for _, owner in leftovers(folder, "old")}):
        recover(target)
