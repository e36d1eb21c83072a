"""Measure how fast this machine multiplies matrices: 10 ms, so that nothing has to be remembered."""

from __future__ import annotations

import statistics
import time

import torch

from tlcompile.sweep.costs import Rates

SIDES = {"cpu": 512, "cuda": 4096}  # of square matrices that keep a device busy
REPEATS = 3
FUSED_GAIN = (
    1.5  # of folded norms and channels-last over eager fp32: 1.45 on resnet18, 1.8 on resnet50
)


def measure_rates(device: torch.device) -> Rates:
    """Return FLOP a second by precision: of products in fp32 for exact, in bf16 for fast."""
    exact = _rate(device, torch.float32)
    fast = _rate(device, torch.bfloat16)
    return Rates({"exact": exact, "fp32-fused": exact * FUSED_GAIN, "fast": max(fast, exact)})


def _rate(device: torch.device, dtype: torch.dtype) -> float:
    side = SIDES.get(device.type, SIDES["cpu"])
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    torch.mm(matrix, matrix)  # unmeasured: libraries choose their kernels
    return 2 * side**3 / statistics.median(_seconds(matrix) for _ in range(REPEATS))


def _seconds(matrix: torch.Tensor) -> float:
    """Time one product: CPU time where the CPU computes, which others on the machine disturb less."""
    if matrix.device.type != "cuda":
        start = time.thread_time()
        torch.mm(matrix, matrix)
        return max(time.thread_time() - start, 1e-6)
    torch.cuda.synchronize(matrix.device)
    start = time.perf_counter()
    torch.mm(matrix, matrix)
    torch.cuda.synchronize(matrix.device)
    return max(time.perf_counter() - start, 1e-6)
