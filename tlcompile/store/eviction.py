"""Keep the store within its budget: whole sets go, the least recently used first."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tlcompile import durable
from tlcompile.errors.run import RunError, WriteFailedError
from tlcompile.store.lease import LOCK
from tlcompile.store.stored import StoredSet


def evict(sets: Sequence[StoredSet], budget: int) -> list[StoredSet]:
    """Remove sets, the first ones first, until the rest fits; return what has gone.

    A set whose lease is held by a living process stays. Processes that have its rows mapped keep
    them.

    Raises:
        RunError: The disk did not let it.
    """
    too_much = sum(one.num_bytes for one in sets) - budget
    gone: list[StoredSet] = []
    for one in sets:
        if too_much <= 0:
            break
        if remove_set(one.folder):
            gone.append(one)
            too_much -= one.num_bytes
    return gone


def remove_set(folder: Path) -> bool:
    """Remove a set, unless a living process holds its lease or has just removed it."""
    try:
        lock: contextlib.AbstractContextManager[object] | None = durable.take_lock(folder / LOCK)
    except RunError:
        lock = contextlib.nullcontext()  # no locks on this disk: nobody has one
    if lock is None:
        return False
    with lock:
        try:
            durable.remove_at_once(folder)
        except WriteFailedError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return False
    return True


def sweep(folders: Sequence[Path]) -> None:
    """Clear what killed processes of this machine left, as far as the disk lets us."""
    for folder in folders:
        with contextlib.suppress(RunError):
            durable.sweep_temporaries(folder)
