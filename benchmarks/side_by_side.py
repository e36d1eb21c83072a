"""Programs in turn, A B A B, in one process: CPU time and the clock, medians, and one table."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Spent:
    """Seconds that something took: CPU time of this process and its children, and the clock."""

    cpu: float
    clock: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.clock + other.clock)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu - other.cpu, self.clock - other.clock)

    def __mul__(self, factor: float) -> Spent:
        return Spent(self.cpu * factor, self.clock * factor)

    def __str__(self) -> str:
        return f"{_short(self.cpu)} ({_short(self.clock)})"


def now() -> Spent:
    """Read the clocks; children count once they have ended."""
    times = os.times()
    cpu = times.user + times.system + times.children_user + times.children_system
    # os.times() counts in hundredths; the process's own share is known to the nanosecond.
    children = cpu - times.user - times.system
    return Spent(time.process_time() + children, time.perf_counter())


def spent(work: Callable[[], object]) -> Spent:
    """Run something once."""
    start = now()
    work()
    return now() - start


def median(times: Iterable[Spent]) -> Spent:
    """Return the medians of CPU time and of the clock, each for itself."""
    cpu, clock = zip(*((t.cpu, t.clock) for t in times), strict=True)
    return Spent(statistics.median(cpu), statistics.median(clock))


def in_turn(sides: dict[str, Callable[[], Spent]], rounds: int) -> dict[str, Spent]:
    """Run every side once a round, one after the other; return the medians by side."""
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return {name: median(times) for name, times in found.items()}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        bar: Its name in the list of bars.
        work: What was done, and how ours was set.
        baseline: Seconds of the baseline.
        ours: Seconds of ours.
        wanted: The bar, in words.
        limit: The ratio that arithmetic sets on this machine; None: there is none.
        inverse: Whether the ratio is ours / baseline (a cost); else baseline / ours (a gain).
    """

    bar: str
    work: str
    baseline: Spent
    ours: Spent
    wanted: str
    limit: float | None = None
    inverse: bool = False

    @property
    def ratio(self) -> Spent:
        """Return the ratio of CPU times, and of the clocks."""
        above, below = (self.ours, self.baseline) if self.inverse else (self.baseline, self.ours)
        return Spent(above.cpu / below.cpu, above.clock / below.clock)

    def cells(self) -> tuple[str, ...]:
        """Return the line's texts."""
        limit = "" if self.limit is None else f"{self.limit:.3g}"
        texts = (str(self.baseline), str(self.ours), str(self.ratio), self.wanted, limit)
        return (self.bar, self.work, *texts)


HEAD = ("bar", "work", "baseline, CPU s (clock)", "ours", "ratio", "wanted", "limit")


def show_table(rows: Iterable[Row]) -> None:
    """Print the rows as a Markdown table, with the machine below it."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        print("| " + " | ".join(map(str.ljust, line, widths)) + " |")
    print(f"\n{machine()}")


def machine() -> str:
    """Say what computes here, and how busy it is."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
        f" {torch.__version__}; load {load} on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    told = {key.strip(): value.strip() for key, value in found.items()}
    flags = told.get("flags", "").split()
    extras = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{told.get('model name', platform.machine())} ({' '.join(extras) or 'no AVX-512'})"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
