"""What a run says of itself: its first loss, tensors that did not move, its curves."""

from __future__ import annotations

import math

from tlcompile.model.compiled import CompiledModel
from tlcompile.run.refuse import keeps_classifier
from tlcompile.run.splits import Say
from tlcompile.training.curves import read_curves
from tlcompile.training.first_loss import warn_of_first_loss
from tlcompile.training.objective import Objective
from tlcompile.training.proof import FreezeProof
from tlcompile.training.state import TrainingState


def warn_of_start(
    state: TrainingState, objective: Objective, model: CompiledModel, say: Say
) -> None:
    """Warn once, after the very first step, of a fresh head that starts far from chance.

    A classifier that is kept has learned before; its first loss is what it has learned.
    """
    if (state.steps, state.step) != (1, 1) or state.first_loss is None or state.chance is None:
        return  # the end of an epoch of one step is not its first step once more
    if keeps_classifier(model):
        return
    goals = objective.goals.values()
    counts = bool(goals) and all(goal.task != "regression" for goal in goals)
    if line := warn_of_first_loss(state.first_loss, state.chance, counts=counts):
        say(f"warning     {line}")


def warn_of_no_value(state: TrainingState, monitor: str, say: Say) -> None:
    """Warn once of a monitored value that is no number: it can name no best epoch.

    auroc is none where validation has one class alone, r2 where all its numbers are equal.
    """
    *before, last = (math.isnan(row.value(monitor)) for row in state.history)
    if last and not any(before):
        epoch, split = len(state.history), monitor.partition("/")[0]
        say(
            f"warning     {monitor} is no number in epoch {epoch}, so that epoch can be no gain: "
            f"look at the labels of {split}, or write fine_tune.monitor: {split}/loss"
        )


def warn_of_unmoved(proof: FreezeProof, model: CompiledModel, say: Say) -> None:
    """Warn of trainable tensors that are as they were before the phase."""
    if line := proof.warn_of_unmoved(model):
        say(f"warning     {line}")


def tell_curves(state: TrainingState, say: Say) -> dict[str, str] | None:
    """Say what the curves of the run look like; return it for the record."""
    if state.first_loss is None or state.chance is None:
        return None
    reading = read_curves(state.history, chance=state.chance, before=state.first_loss)
    say(reading.worded())
    return reading.as_data()
