"""Where stored features lie, where no recipe says it."""

from __future__ import annotations

from pathlib import Path

from tlcompile.data.datasets import default_root


def cache_root() -> Path:
    """Return `$TLCOMPILE_CACHE`, else tlcompile's folder in the user's cache, as for data sets."""
    return default_root().parent
