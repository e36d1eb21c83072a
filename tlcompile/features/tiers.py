"""Where features are kept: on the device, in memory, on the disk, or nowhere.

Reading a row pays where computing it again takes longer: the break-even is the rate of computing
over the rate of reading, in FLOP a byte.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

# FLOP a byte above which reading is faster than computing (spec: performance, section 9.7).
# cpu: 93 GFLOP/s a core against 3.7 GB/s of gathering from mapped pages, and 1 GB/s of a disk;
# cuda: 300 TFLOP/s against HBM at 4 TB/s, PCIe at 50 GB/s, NVMe at 5 GB/s.
BREAK_EVEN = MappingProxyType(
    {
        "cpu": MappingProxyType({"memory": 25, "disk": 93}),
        "cuda": MappingProxyType({"device": 75, "memory": 6_000, "disk": 60_000}),
    }
)
READING_FLOPS = 280_000_000  # 3 ms of reading, decoding and resizing a JPEG, at 93 GFLOP/s
SHARE = 0.5  # of what is free: the rest is for weights, gradients and activations


@dataclass(frozen=True)
class Tier:
    """Where features are read from while training.

    Attributes:
        name: device, memory (the system's page cache holds the stored file), disk, or live.
        intensity: FLOP of computing a row, reading its image included, a byte of the row.
        break_even: FLOP a byte above which this tier pays; of live, that of the tier that did not.
    """

    name: str
    intensity: float
    break_even: float

    def worded(self) -> str:
        """Return one clause for the plan."""
        told = f"pays from {self.break_even:,.0f} FLOP a byte on; here {self.intensity:,.0f}"
        if self.name == "live":
            return f"computed again in every epoch, which is faster than reading ({told})"
        place = {
            "device": "kept on the device",
            "memory": "stored on disk, read from memory",
            "disk": "stored on disk, read from there",
        }
        return f"{place[self.name]} ({told})"


def choose_tier(
    device: str, *, flops: int, row_bytes: int, rows: int | None, free: dict[str, int]
) -> Tier:
    """Choose the fastest place that the rows fit into and that pays.

    Args:
        device: Type of the device that computes; mps counts as cpu, whose memory it shares.
        flops: Of the frozen part, for one image.
        row_bytes: Of one row.
        rows: How many; None: not known, and taken to fit.
        free: Bytes that are free on the device and in memory, where that is known.
    """
    rates = BREAK_EVEN.get(device, BREAK_EVEN["cpu"])
    intensity = (flops + READING_FLOPS) / max(row_bytes, 1)
    total = (rows or 0) * row_bytes
    for name, break_even in rates.items():
        fits = total <= free.get(name, 2**62) * SHARE or name == "disk"
        if fits and intensity >= break_even:
            return Tier(name, intensity, break_even)
        if fits:
            return Tier("live", intensity, break_even)
    return Tier("live", intensity, rates["disk"])


def free_bytes() -> dict[str, int]:
    """Return what is free in memory, and on the device where there is one."""
    free = {"memory": free_memory()}
    if torch.cuda.is_available():
        free["device"] = torch.cuda.mem_get_info()[0]
    return free


def free_memory() -> int:
    """Return the bytes of memory that can be had without swapping; a gibibyte where nobody tells."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        told = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(told.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 2**30
