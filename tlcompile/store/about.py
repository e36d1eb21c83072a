"""What a set of stored rows is: its key, the form of a row, and what the key was made of."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Final

import torch

FORMAT: Final = 1  # of all files of the store; another one lives in another folder
ABOUT: Final = "about.json"
_STORED: Final = "float32 bfloat16 float16 float64 uint8 int32 int64 bool"
DTYPES: Final[dict[str, torch.dtype]] = {name: getattr(torch, name) for name in _STORED.split()}


@dataclass(frozen=True)
class About:
    """A set: the rows of one vertex under one fingerprint.

    Attributes:
        key: The fingerprint, 64 hexadecimal digits.
        vertex: Whose output it is.
        shape: Of one row.
        dtype: One of DTYPES, in torch's words.
        ingredients: What the key was made of, for people; plain JSON.
    """

    key: str
    vertex: str
    shape: tuple[int, ...]
    dtype: str
    ingredients: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        assert is_digest(self.key), self.key
        assert self.dtype in DTYPES, self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def is_digest(text: object) -> bool:
    """Say whether it is a SHA-256 in hexadecimal digits."""
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def about_bytes(about: About) -> bytes:
    """Write it with a digest of itself; it has one spelling, so every flipped bit shows."""
    data = {"format": FORMAT, **vars(about)}  # not asdict, which copies all ingredients
    digest = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    return json.dumps({**data, "sha256": digest}, indent=1).encode() + b"\n"


def read_about(data: bytes) -> About | None:
    """Read it back; None when these are not the bytes that were written."""
    try:
        fields = json.loads(data)
        del fields["format"], fields["sha256"]
        about = About(**{**fields, "shape": tuple(fields["shape"])})
        intact = about_bytes(about) == data
    except (ValueError, LookupError, TypeError, AssertionError, RecursionError):
        return None
    return about if intact else None
