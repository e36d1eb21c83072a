"""Draw the losses of a learning-rate range test."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tlcompile.training.rate_range import RangeTest

DOTS, LINE, MARK = "#9aa5b1", "#1f5fa8", "#c0392b"


def draw_rates(test: RangeTest, title: str, kind: str) -> bytes:
    """Return the plot as a file's bytes.

    Args:
        test: What was seen.
        title: Above it.
        kind: svg, png or pdf.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # an extra; without pyplot, which keeps global state

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(test.rates, test.losses, s=10, color=DOTS, label="loss of a step")
    axes.plot(test.rates, test.smoothed, color=LINE, linewidth=2, label="smoothed")
    if test.suggested is not None:
        label = f"suggested: {test.suggested:.2g}"
        axes.axvline(test.suggested, color=MARK, linestyle="--", label=label)
    axes.set_xscale("log")
    low, high = min(test.losses), max(test.smoothed)
    axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(title)
    axes.grid(alpha=0.25, which="major")
    axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150)
    return file.getvalue()
