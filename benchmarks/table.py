"""The table that every benchmark prints: bar, work, baseline, ours, ratio, bar in figures, limit."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from side import Spent

HEAD = ("bar", "work", "baseline, CPU s (clock)", "ours", "ratio", "wanted", "limit")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


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

    def cells(self) -> tuple[str, ...]:
        """Return the line's texts."""
        ratio = self.ours / self.baseline if self.inverse else self.baseline / self.ours
        limit = "" if self.limit is None else f"{self.limit:.3g}"
        figures = (_shown(self.baseline), _shown(self.ours), _shown(ratio))
        return (self.bar, self.work, *figures, self.wanted, limit)


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
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
        f" {torch.__version__}; load {load} on {when} UTC"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    told = {key.strip(): value.strip() for key, value in found.items()}
    flags = told.get("flags", "").split()
    return f"{told.get('model name', '')} ({' '.join(f for f in FLAGS if f in flags)})"


def _shown(spent: Spent) -> str:
    return f"{_short(spent.cpu)} ({_short(spent.clock)})"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
