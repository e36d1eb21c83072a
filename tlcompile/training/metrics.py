"""Scores with what one may believe of them: n, and a 95 % interval of an accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Score:
    """Loss and metrics over a split.

    Attributes:
        loss: Mean over samples: nats; of a regression in standard deviations of its targets.
        correct: Samples whose most likely class is their own; None where there are no classes.
        count: Samples.
        values: Further metrics by name; accuracies and the like from 0 to 1.
        parts: The score of each output, where there are several; `loss` is then their weighted sum.
    """

    loss: float
    correct: int | None
    count: int
    values: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Score] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Return the share of correct samples, 0 to 1; of masks, that of pixels."""
        if self.correct is None or not self.count:
            return self.values.get("accuracy", math.nan)
        return self.correct / self.count

    def value(self, name: str) -> float:
        """Return a metric by its name: `loss`, `accuracy`, `f1`, `species/accuracy`; else nan."""
        output, _, rest = name.partition("/")
        if rest:
            part = self.parts.get(output)
            return math.nan if part is None else part.value(rest)
        if name == "loss":
            return self.loss
        return self.accuracy if name == "accuracy" else self.values.get(name, math.nan)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the accuracy (Wilson's score interval).

        Source:
            E. B. Wilson, Probable inference, the law of succession, and statistical inference,
            JASA 22 (1927); chosen over the normal one, which leaves [0, 1] near its ends.
        """
        if self.correct is None or not self.count:  # pixels are not independent of each other
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

    @property
    def main(self) -> tuple[str, float] | None:
        """The main metric and its name; None: several outputs, or a loss alone."""
        if self.correct is not None:
            return "accuracy", self.accuracy
        return next(iter(self.values.items()), None)

    def brief(self) -> str:
        """Word loss and main metrics for a line an epoch: 'loss 0.1234 accuracy 0.926'."""
        named = {f"{name}/": part for name, part in self.parts.items()} or {"": self}
        mains = ((name, part.main) for name, part in named.items())
        shown = (f" {name}{main[0]} {main[1]:.3f}" for name, main in mains if main is not None)
        return f"loss {self.loss:.4f}{''.join(shown)}"

    def headline(self) -> str:
        """Word the main metric with n, and the interval of an accuracy."""
        if self.parts:
            return "; ".join(f"{name} {part.headline()}" for name, part in self.parts.items())
        if self.correct is not None:
            return f"accuracy {self.worded()}"
        name, value = self.main or ("loss", self.loss)
        return f"{name} {value:.4f} (n = {self.count})"

    def told(self) -> str:
        """Word every metric in one line, the main one first, for any task."""
        if self.parts:
            each = (f"{name}: {part.told()}" for name, part in self.parts.items())
            return "; ".join((*each, f"loss of all {self.loss:.4f}"))
        if self.correct is not None:
            return f"accuracy {self.worded()}, loss {self.loss:.4f}"
        shown = "".join(f"{name} {value:.4f}, " for name, value in self.values.items())
        return f"{shown}loss {self.loss:.4f} (n = {self.count})"

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, with the interval of an accuracy."""
        data: dict[str, Any] = {"loss": self.loss, "n": self.count, **self.values}
        if self.correct is not None:
            data |= {"accuracy": self.accuracy, "interval95": list(self.interval())}
            data["correct"] = self.correct
        if self.parts:
            data["outputs"] = {name: part.as_data() for name, part in self.parts.items()}
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Score:
        """Return the score that `as_data` told of."""
        known = {"loss", "n", "correct", "interval95", "outputs"}
        if "correct" in data:
            known.add("accuracy")
        values = {name: value for name, value in data.items() if name not in known}
        parts = {name: cls.from_data(part) for name, part in data.get("outputs", {}).items()}
        return cls(data["loss"], data.get("correct"), data["n"], values, parts)


def is_better(value: float, best: float | None, *, rising: bool, min_delta: float = 0.0) -> bool:
    """Tell whether a value is better than the best one.

    Args:
        value: nan is never better.
        best: None or nan: there is none yet.
        rising: Whether a higher value is better; a metric knows (Objective.metrics).
        min_delta: Smallest change that counts.
    """
    if best is None or math.isnan(best):
        return not math.isnan(value)
    return value > best + min_delta if rising else value < best - min_delta
