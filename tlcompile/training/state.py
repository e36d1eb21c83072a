"""Where training stands between two steps: counters and what has been seen. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tlcompile.training.metrics import Score, is_better


@dataclass(frozen=True)
class EpochRow:
    """One line of metrics.csv. Epochs count from 1 over all phases; seconds are wall time.

    Attributes:
        epoch: Over all phases.
        phase: Its name; `main` where there is but one.
        train: Of what was computed while learning.
        val: None: nothing to judge by.
        lr: Of the first group, at the epoch's first step.
        seconds: Wall time.
    """

    epoch: int
    phase: str
    train: Score
    val: Score | None
    lr: float
    seconds: float

    def value(self, monitor: str) -> float:
        """Return a metric by its name, `val/accuracy`."""
        split, _, metric = monitor.partition("/")
        score = self.train if split == "train" else self.val
        return math.nan if score is None else score.value(metric)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        val = self.val.as_data() if self.val else None
        return {**vars(self), "train": self.train.as_data(), "val": val}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> EpochRow:
        """Return what `as_data` gave."""
        val = None if data["val"] is None else Score.from_data(data["val"])
        return cls(**{**data, "train": Score.from_data(data["train"]), "val": val})


@dataclass
class TrainingState:
    """Where training stands. With the tensors of a checkpoint, all that a resume needs.

    Random numbers are no part of it: each is drawn from a seed and one of these counters.

    Attributes:
        phase: Which one, from 0; as many as there are: all are done.
        epoch: Finished epochs of the phase.
        step: Finished steps of the running epoch.
        steps: Finished steps of all epochs.
        waited: Epochs of the phase since the monitored value gained what counts.
        history: A row for each finished epoch of all phases.
        best: The place in `history` of the best epoch.
        phase_best: The same, of the phase.
        gained: The place of the last epoch of the phase that gained what counts.
        halvings: How often memory ran out: so often the samples computed at once were halved.
        seconds: Wall time spent in the running epoch.
        first_loss: Of the very first batch, before anything was learned.
        chance: What a guess at random would have had there.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    waited: int = 0
    history: list[EpochRow] = field(default_factory=list)
    best: int | None = None
    phase_best: int | None = None
    gained: int | None = None
    halvings: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    chance: float | None = None

    def improves(
        self, row: EpochRow, place: int | None, monitor: str, *, rising: bool, least: float = 0.0
    ) -> bool:
        """Tell whether an epoch is better than another, by more than `least`; the first always is.

        Args:
            row: Of the epoch.
            place: Of the other in `history`; None: there is none yet.
            monitor: What they are compared by.
            rising: Whether it is better when it is higher.
            least: The smallest gain that counts.
        """
        if place is None:
            return True
        value, before = row.value(monitor), self.history[place].value(monitor)
        return is_better(value, before, rising=rising, min_delta=least)

    def finish_epoch(
        self, row: EpochRow, monitor: str, *, rising: bool, min_delta: float
    ) -> tuple[bool, bool]:
        """Count an epoch that is over; return whether it is the best of all, and of its phase.

        A gain below `min_delta` makes an epoch the best, and does not spare its phase the wait.
        """
        last = len(self.history)
        is_best = self.improves(row, self.best, monitor, rising=rising)
        is_phase_best = self.improves(row, self.phase_best, monitor, rising=rising)
        gains = self.improves(row, self.gained, monitor, rising=rising, least=min_delta)
        self.history.append(row)
        self.best = last if is_best else self.best
        self.phase_best = last if is_phase_best else self.phase_best
        self.gained, self.waited = (last, 0) if gains else (self.gained, self.waited + 1)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        return is_best, is_phase_best

    def finish_phase(self) -> None:
        """Go on to the next phase: its schedule, its patience and its best epoch begin anew."""
        self.phase, self.epoch, self.waited = self.phase + 1, 0, 0
        self.phase_best = self.gained = None

    def phase_rows(self) -> list[EpochRow]:
        """Return the finished epochs of the running phase."""
        return self.history[len(self.history) - self.epoch :]

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**vars(self), "history": [row.as_data() for row in self.history]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> TrainingState:
        """Return what `as_data` gave."""
        return cls(**{**data, "history": [EpochRow.from_data(row) for row in data["history"]]})
