"""Where training stands between two steps: counters and what has been seen. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tlcompile.training.metrics import Score


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
        waited: Epochs of the phase since the monitored value was best.
        history: A row for each finished epoch of all phases.
        best: The place in `history` of the best epoch.
        phase_best: The same, of the phase.
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
    halvings: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    chance: float | None = None

    def finish_epoch(self, row: EpochRow, *, is_best: bool, is_phase_best: bool) -> None:
        """Count an epoch that is over."""
        self.history.append(row)
        last = len(self.history) - 1
        if is_best:
            self.best = last
        self.phase_best, self.waited = (
            (last, 0) if is_phase_best else (self.phase_best, self.waited + 1)
        )
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0

    def finish_phase(self) -> None:
        """Go on to the next phase: its schedule, its patience and its best epoch begin anew."""
        self.phase, self.epoch, self.waited, self.phase_best = self.phase + 1, 0, 0, None

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
