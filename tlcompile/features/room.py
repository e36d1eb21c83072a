"""Room for what a run wants to store: the budget of the store, and the disk under it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import numpy as np

from tlcompile.durable.files import make_folder
from tlcompile.errors.features import CacheFullError, CacheNotWritableError, OverBudgetError
from tlcompile.errors.run import NoPermissionError, WriteFailedError
from tlcompile.features.extract import missing, whole
from tlcompile.store.store import FeatureSet, Keys, Store

Wanted = Sequence[tuple[FeatureSet, Keys]]


def make_room(store: Store, wanted: Wanted, budget: int) -> None:
    """Evict what was not used for long; refuse to begin what cannot end.

    Args:
        store: Where the sets are.
        wanted: Sets, each with the keys of all rows that it shall have.
        budget: Bytes that the store may take.

    Raises:
        OverBudgetError: The budget is too small for these rows alone.
        CacheFullError: The disk is.
        CacheNotWritableError: The folder is not there, and cannot be made.
        RunError: The disk did not let us evict.
    """
    needed = sum(one.row_bytes * len(missing([one], keys)) for one, keys in wanted)
    if not needed:
        return
    total = sum(one.row_bytes * len(np.unique(whole(keys))) for one, keys in wanted)
    if total > budget:
        raise OverBudgetError(path=store.cache, needed_bytes=total, budget_bytes=budget)
    for one, _ in wanted:
        one.mark_used()
    store.collect(budget - needed)
    try:
        make_folder(store.cache)
    except (WriteFailedError, NoPermissionError) as error:
        reason = getattr(error, "reason", "no permission")
        raise CacheNotWritableError(path=store.cache, reason=reason) from error
    free = shutil.disk_usage(store.cache).free
    if needed > free:
        raise CacheFullError(path=store.cache, needed_bytes=needed, free_bytes=free)
