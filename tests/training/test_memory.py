"""Which errors say that memory ran out."""

from __future__ import annotations

import pytest
import torch

from tlcompile.training.memory import is_out_of_memory


def test_the_allocator_of_the_cpu_is_recognised_when_it_really_fails() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


MPS = "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max 9.07 GB)"


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"), MemoryError(), RuntimeError(MPS)],
)  # fmt: skip
def test_what_devices_say_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")],
)  # fmt: skip
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)
