"""Memory that tensors have freed serves the next ones; page faults took 40 % of a forward."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys

import pytest

from tlcompile.run.freed_memory import only_new_garbage

# Fills 64 MiB and frees them, again and again: once the heap has its size, that needs no new pages.
FAULTS = """
import resource
import torch
from tlcompile.run.freed_memory import keep_freed_memory

def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
for _ in range(20):
    fill()
print(fill())
"""


def late_faults(**environment: str) -> int:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so")
def test_freed_memory_is_used_again() -> None:
    assert late_faults() < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so")
def test_what_the_user_has_set_stays() -> None:
    assert late_faults(MALLOC_TRIM_THRESHOLD_="131072") > 10_000


def test_the_collector_passes_over_what_was_there_before() -> None:
    gc.unfreeze()  # what an earlier test may have left
    old: list[object] = []
    with only_new_garbage():
        new: list[object] = []
        seen = gc.get_objects()
        assert any(one is new for one in seen)
        assert not any(one is old for one in seen)
    assert gc.get_freeze_count() == 0


def test_what_somebody_else_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with only_new_garbage():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
