"""Wait while another process computes the rows that we want. Saves work; nothing depends on it.

The lock goes with the process that holds it. Where locks do not work, rows are computed twice and
stored twice, which is all. Only this process's own monotonic clock counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tlcompile.durable import Lock, take_lock
from tlcompile.errors.run import RunError

LOCK: Final = "lock"  # the file's name in a set's folder
FIRST_PAUSE: Final = 0.005  # seconds between two looks, growing to
LONGEST_PAUSE: Final = 0.25


def wait_for_lock(
    path: Path, patience: float, *, refresh: Callable[[], bool], is_complete: Callable[[], bool]
) -> Lock | None:
    """Take a lock; None when nothing is left to do, when nobody gets on, or without locks.

    Args:
        path: The file to lock.
        patience: Seconds without progress after which we go on without the lock.
        refresh: Looks whether something has come from others.
        is_complete: Says whether all that we want has come.
    """
    refresh()
    complete = is_complete()
    since, pause = time.monotonic(), FIRST_PAUSE
    while not complete:
        try:
            lock = take_lock(path)
        except RunError:
            return None  # a folder that is only read, or a disk without locks
        if lock is not None:
            return lock
        if refresh():
            complete = is_complete()
            since, pause = time.monotonic(), FIRST_PAUSE
        elif (left := since + patience - time.monotonic()) <= 0:
            return None
        else:
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
    return None
