"""Learning rates: a default, and factors that are a pure function of where training stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tlcompile.model.compiled import CompiledModel

DEFAULT_LR_NEW = 1e-3  # where only new layers train
DEFAULT_LR_TUNED = 1e-4  # where pretrained weights move too


def default_rate(model: CompiledModel) -> float:
    """Return the learning rate that fits what trains."""
    only_new = all(name in model.origins for name, _ in model.trainable())
    return DEFAULT_LR_NEW if only_new else DEFAULT_LR_TUNED


@dataclass(frozen=True)
class When:
    """Where a phase stands before a step.

    Attributes:
        step: Of the phase, counts from 0.
        steps_an_epoch: Steps of the optimizer.
        epochs: Of the phase, at most.
        values: The monitored value of each finished epoch of the phase.
    """

    step: int
    steps_an_epoch: int
    epochs: int
    values: tuple[float, ...] = ()

    @property
    def epoch(self) -> int:
        """Return the epoch, counted from 0."""
        return self.step // self.steps_an_epoch

    @property
    def steps(self) -> int:
        """Return the steps of the whole phase."""
        return self.steps_an_epoch * self.epochs


Schedule = Callable[[When], float]


def build_schedule(
    name: str, *, warmup: float = 0.0, rising: bool = True, **options: object
) -> Schedule:
    """Return what gives the factor of every group's rate at a step.

    Args:
        name: Of `SCHEDULES`.
        warmup: Share of the phase if below 1, else epochs; the factor grows from step to step, on
            top of the schedule. 0: none.
        rising: Whether the monitored value is better when it is higher.
        options: The schedule's own.
    """
    if name == "plateau":
        options["rising"] = rising
    shape = SCHEDULES[name]

    def factor(when: When) -> float:
        return _warm(when, warmup) * float(shape(when, **options))

    return factor


def _warm(when: When, warmup: float) -> float:
    """Return the share of the rate that a warm-up lets through."""
    steps = warmup_steps(when, warmup)
    return (when.step + 1) / steps if when.step < steps else 1.0


def warmup_steps(when: When, warmup: float) -> int:
    """Return how many steps a warm-up takes; the last of them has the full rate."""
    whole = when.steps if warmup < 1 else when.steps_an_epoch
    return max(1, round(warmup * whole))


def _constant(_when: When) -> float:
    return 1.0


def _step(when: When, *, every: int, gamma: float) -> float:
    return float(gamma ** (when.epoch // every))


def _multistep(when: When, *, at: Sequence[int], gamma: float) -> float:
    return float(gamma ** sum(when.epoch >= epoch for epoch in at))


def _exponential(when: When, *, gamma: float) -> float:
    return float(gamma**when.epoch)


def _polynomial(when: When, *, power: float) -> float:
    return float((1 - when.epoch / when.epochs) ** power)


def _linear(when: When, *, low: float) -> float:
    return 1 + (low - 1) * when.epoch / when.epochs


def _cosine(when: When, *, low: float = 0.0) -> float:
    return low + (1 - low) * _half_cosine(when.epoch, when.epochs)


def _cosine_restarts(when: When, *, every: int, growth: int, low: float) -> float:
    length, epoch = every, when.epoch
    while epoch >= length:
        epoch, length = epoch - length, length * growth
    return low + (1 - low) * _half_cosine(epoch, length)


def _one_cycle(
    when: When, *, rise: float, start: float, end: float, shape: Literal["cosine", "linear"]
) -> float:
    """Rise from `start` to 1 and fall to `end`, step by step, as torch's OneCycleLR."""
    last = when.steps - 1
    top = rise * when.steps - 1
    if when.step <= top:
        low, way = start, when.step / top if top else 1.0
    else:
        low, way = end, 1 - (when.step - top) / (last - top)
    return low + (1 - low) * (_half_cosine(1 - way, 1) if shape == "cosine" else way)


def _plateau(
    when: When, *, factor: float, patience: int, min_delta: float, low: float, rising: bool
) -> float:
    """Multiply after `patience` epochs without improvement, counted anew after each time."""
    best, waited, now = -math.inf, 0, 1.0
    for value in when.values:
        height = value if rising else -value
        best, waited = (height, 0) if height > best + min_delta else (best, waited + 1)
        if waited >= patience:
            now, waited = max(now * factor, low), 0
    return now


def _half_cosine(done: float, whole: float) -> float:
    """Fall from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * done / whole))


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "step": _step,
    "multistep": _multistep,
    "exponential": _exponential,
    "polynomial": _polynomial,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "one_cycle": _one_cycle,
    "plateau": _plateau,
}
