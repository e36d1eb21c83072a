"""Amounts of bytes as people write them, with a unit: `20GB`, `1.5 GiB`, `500 MB`."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)")

WANTED: Final = "a number with a unit, as 20GB, 500 MB or 1.5 GiB"


def parse_bytes(text: str) -> int:
    """Return how many bytes a text means.

    Raises:
        ValueError: It is no such amount.

    Example:
        >>> parse_bytes("1.5 GiB")
        1610612736
    """
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f"'{text}' is not {WANTED}")
    return int(float(found[1]) * unit)


def show_bytes(num_bytes: float) -> str:
    """Return an amount of bytes in three digits: '12.3 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
