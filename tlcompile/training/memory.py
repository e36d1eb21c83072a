"""Recognise that memory ran out, whatever the device says it with."""

from __future__ import annotations

import torch

# torch raises a class of its own for CUDA and XPU only; the allocators of the others raise a bare
# RuntimeError, so its text has to tell. Source: torch's c10/core/impl/alloc_cpu.cpp
# ("DefaultCPUAllocator: can't allocate memory") and aten/src/ATen/mps/MPSAllocator.mm ("MPS backend
# out of memory").
_WORDS = ("DefaultCPUAllocator", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
