"""The learning-rate range test: steps at ever higher rates, and what their losses say.

Source:
    L. N. Smith, Cyclical learning rates for training neural networks, WACV 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlcompile.errors.run import NotFiniteLossError
from tlcompile.training.loop import PhaseTrainer, Stepped

DIVERGED = 2.0  # times the loss at the start; what comes behind it tells nothing
WINDOW = 0.1  # share of the steps over which losses are averaged
FALL = 0.05  # share by which the loss has to fall before a rate is suggested
MARGIN = 10.0  # below the rate of the lowest loss, where steps begin to overshoot


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw, step by step.

    Attributes:
        rates: Of each step, rising by a fixed factor.
        losses: Of each step's batch, before the step was taken.
        smoothed: Averages over neighbouring steps, as many below as above: they do not lag behind.
        diverged: Whether it ended early, because the losses did.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def lowest(self) -> int:
        """The step of the lowest smoothed loss."""
        return self.smoothed.index(min(self.smoothed))

    @property
    def steepest(self) -> int:
        """The step at which the smoothed loss falls fastest, per factor of the rate."""
        return min(range(self.lowest + 1), key=self._slope)

    @property
    def falls(self) -> bool:
        """Whether any rate of the range lowers the loss."""
        start = self.smoothed[0]
        return self.smoothed[self.lowest] < (1 - FALL) * start

    @property
    def suggested(self) -> float | None:
        """A rate to start with: a tenth of that of the lowest loss; None: no rate lowers it."""
        return self.rates[self.lowest] / MARGIN if self.falls else None

    def _slope(self, step: int) -> float:
        below, above = max(step - 1, 0), min(step + 1, len(self.smoothed) - 1)
        return (self.smoothed[above] - self.smoothed[below]) / max(above - below, 1)


def run_range_test(
    trainer: PhaseTrainer, *, base: float, first: float, last: float, steps: int
) -> RangeTest:
    """Take steps at rates from `first` to `last`; the trainer and its model are used up.

    Args:
        trainer: Of a copy of the model, at its beginning.
        base: The rate that the trainer's groups have before the schedule.
        first: Rate of the first step.
        last: Rate of the last step, unless the losses diverge before.
        steps: How many.
    """
    growth = (last / first) ** (1 / (steps - 1))
    trainer.val, trainer.average = None, None
    trainer.schedule = lambda when: first * growth**when.step / base
    trainer.settings = replace(
        trainer.settings, epochs=steps, patience=None, monitor="train/loss", rising=False
    )
    losses, diverged = _losses(trainer, steps)
    rates = tuple(first * growth**step for step in range(len(losses)))
    return RangeTest(rates, tuple(losses), smooth(losses, steps), diverged)


def _losses(trainer: PhaseTrainer, steps: int) -> tuple[list[float], bool]:
    """Take the steps; return their losses, and whether they diverged."""
    losses: list[float] = []
    reach, seen = _reach(steps), (0.0, 0)
    try:
        for event in trainer.run():
            if not isinstance(event, Stepped):
                seen = (0.0, 0)  # the sums of an epoch begin anew
                continue
            sums = trainer.running.tensors()
            now = (float(sums["loss"]), int(sums["count"]))
            losses.append((now[0] - seen[0]) / (now[1] - seen[1]))
            seen = now
            if _mean(losses[-reach:]) > DIVERGED * _mean(losses[:reach]):
                return losses, True
            if len(losses) == steps:
                break
    except NotFiniteLossError:
        return losses, True
    return losses, False


def smooth(losses: Sequence[float], steps: int) -> tuple[float, ...]:
    """Average each loss with its neighbours, before and behind it."""
    reach = _reach(steps)
    places = range(len(losses))
    return tuple(_mean(losses[max(0, place - reach) : place + reach + 1]) for place in places)


def _reach(steps: int) -> int:
    """Return how many neighbours on each side are averaged."""
    return max(1, math.ceil(WINDOW * steps / 2))


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses)
