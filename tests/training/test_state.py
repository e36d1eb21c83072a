"""Counting epochs: which is the best, which spares its phase the wait."""

from __future__ import annotations

import math

import pytest

from tlcompile.training.metrics import Score
from tlcompile.training.state import EpochRow, TrainingState

NAN = math.nan


def counted(
    state: TrainingState, values: list[float], *, rising: bool = False, min_delta: float = 0.0
) -> list[tuple[bool, bool, int]]:
    """Count epochs of these values; return whether each is the best, of its phase, and the wait."""
    found = []
    for value in values:
        score = Score(value, None, 1, {"f1": value})
        row = EpochRow(len(state.history) + 1, "main", score, None, 0.1, 0.0)
        monitor = "train/f1" if rising else "train/loss"
        best = state.finish_epoch(row, monitor, rising=rising, min_delta=min_delta)
        found.append((*best, state.waited))
    return found


@pytest.mark.parametrize("rising", [False, True])
def test_a_small_gain_is_the_best_epoch_and_spares_no_wait(rising: bool) -> None:
    """min_delta says when to stop; the weights that are kept are the best ones all the same."""
    sign, state = 1 if rising else -1, TrainingState()
    values = [sign * value for value in (0.5, 0.55, 0.58, 0.7, 0.65)]
    assert counted(state, values, rising=rising, min_delta=0.1) == [
        (True, True, 0),
        (True, True, 1),
        (True, True, 2),
        (True, True, 0),  # 0.2 above the last epoch that counted
        (False, False, 1),
    ]
    assert state.best == state.phase_best == 3


def test_another_phase_waits_and_has_a_best_epoch_of_its_own() -> None:
    state = TrainingState()
    counted(state, [0.5, 0.6])
    state.finish_phase()
    assert counted(state, [0.8, 0.7]) == [(False, True, 0), (False, True, 0)]
    assert (state.best, state.phase_best) == (0, 3)


def test_what_is_no_number_is_never_better() -> None:
    state = TrainingState()
    assert [wait for *_, wait in counted(state, [NAN, NAN, 0.5, NAN])] == [0, 1, 0, 1]
    assert state.best == 2


def test_it_survives_as_plain_data() -> None:
    state = TrainingState()
    counted(state, [0.5, 0.45, 0.3], min_delta=0.1)
    assert TrainingState.from_data(state.as_data()) == state
