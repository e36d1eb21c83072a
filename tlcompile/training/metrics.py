"""Accuracy with what one may believe of it: n and a 95 % interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Score:
    """Loss and accuracy over a split.

    Attributes:
        loss: Mean over samples, nats.
        correct: Samples whose most likely class is their own; None where there are no classes.
        count: Samples.
    """

    loss: float
    correct: int | None
    count: int

    @property
    def accuracy(self) -> float:
        """Return the share of correct samples, 0 to 1."""
        if self.correct is None or not self.count:
            return math.nan
        return self.correct / self.count

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the accuracy (Wilson's score interval).

        Source:
            E. B. Wilson, Probable inference, the law of succession, and statistical inference,
            JASA 22 (1927); chosen over the normal one, which leaves [0, 1] near its ends.
        """
        if math.isnan(self.accuracy):
            return (math.nan, math.nan)
        n, p, z2 = self.count, self.accuracy, Z95**2
        centre = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return (max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))

    def worded(self) -> str:
        """Word the accuracy: '92.8 % (n = 153, 95 % interval 87.6 to 95.9)'."""
        low, high = self.interval()
        percent = f"{100 * self.accuracy:.1f} %"
        return f"{percent} (n = {self.count}, 95 % interval {100 * low:.1f} to {100 * high:.1f})"


RISING = {"val/accuracy": True, "train/accuracy": True, "val/loss": False, "train/loss": False}


def improves(monitor: str, value: float, best: float | None, min_delta: float = 0.0) -> bool:
    """Tell whether a value is better than the best one; every metric knows its direction."""
    if best is None or math.isnan(best):
        return not math.isnan(value)
    return value > best + min_delta if RISING[monitor] else value < best - min_delta
