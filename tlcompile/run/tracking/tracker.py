"""What a tracker is told, and the numbers of an epoch as every tracker has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tlcompile.training.metrics import Score
from tlcompile.training.state import EpochRow

State = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Followed:
    """The run that is followed.

    Attributes:
        folder: The run's own; its name is the run's.
        recipe: Every key of it, as plain data.
        epochs: Finished before: more than 0 where the run goes on.
        known_as: The tracker's own name for the run, from before; None: it is new.
    """

    folder: Path
    recipe: Mapping[str, Any]
    epochs: int = 0
    known_as: str | None = None


class Tracker(Protocol):
    """Follows one run, and is closed with it. What it raises is said once, and ends it."""

    def begin(self, run: Followed) -> str | None:
        """Open; return the tracker's own name for the run, to go on under it after a resume."""
        ...

    def epoch(self, row: EpochRow) -> None:
        """Take the numbers of an epoch."""
        ...

    def event(self, text: str, epoch: int) -> None:
        """Take what happened, in words."""
        ...

    def end(self, state: State) -> None:
        """Close."""
        ...


def values_of(row: EpochRow) -> dict[str, float]:
    """Return the numbers of an epoch by name: 'train/loss', 'val/accuracy', 'lr', 'seconds'."""
    values = {f"train/{name}": value for name, value in _flat(row.train).items()}
    if row.val is not None:
        values |= {f"val/{name}": value for name, value in _flat(row.val).items()}
    return {**values, "lr": row.lr, "seconds": row.seconds}


def _flat(score: Score) -> dict[str, float]:
    values = {"loss": score.loss, **score.values}
    if score.correct is not None:
        values["accuracy"] = score.accuracy
    for output, part in score.parts.items():
        values |= {f"{output}/{name}": value for name, value in _flat(part).items()}
    return values


def flat_keys(tree: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return every value of a recipe as text, by its dotted key."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat_keys(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = str(value)
    return found
