"""Features of weights that a run itself has trained: nobody else can ever use them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tlcompile import durable
from tlcompile.errors.run import RunError
from tlcompile.store.store import Store

OWN: Final = "own_features"  # the folder's name, in the run's


@contextlib.contextmanager
def own_store(folder: Path, *, shared: bool = False) -> Iterator[Store]:
    """Give a run a store of its own, empty, which goes when the block ends.

    Rows that have been mapped stay readable. What a killed run left goes first.

    Args:
        folder: The run's own.
        shared: It is another process's, which empties and removes it.

    Raises:
        RunError: What a killed run left cannot be removed.
    """
    root = folder / OWN
    if shared:
        yield Store(root)
        return
    durable.remove_folder(root)
    try:
        yield Store(root)
    finally:
        with contextlib.suppress(RunError):  # no reason to lose a run: the next start removes it
            durable.remove_folder(root)
