"""Import torch and what is built on it without collecting garbage meanwhile."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Put off garbage collection; what is imported stays, so later collections pass it over.

    Imports leave no garbage, and each full collection walks all of torch: half a second of every
    command.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
            # Else torch's own libraries see objects that live on at the end, and say so.
            atexit.register(gc.unfreeze)
