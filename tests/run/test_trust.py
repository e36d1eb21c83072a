"""What a run says of itself: once, and where there is something to say."""

from __future__ import annotations

import math

from tiny import TinyNet, make_recipe

from tlcompile.compiler import compile_recipe
from tlcompile.run.trust import warn_of_no_value, warn_of_start
from tlcompile.training.goal import simple_goal
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Objective
from tlcompile.training.state import EpochRow, TrainingState


def state_of(*values: float) -> TrainingState:
    """Return the state behind epochs of which validation's auroc was this."""
    state = TrainingState()
    for number, value in enumerate(values):
        val = Score(0.5, 1, 2, {"auroc": value})
        row = EpochRow(number + 1, "main", Score(0.5, 1, 2), val, 0.1, 0.0)
        state.finish_epoch(row, "val/auroc", rising=True, min_delta=0.0)
    return state


def test_a_value_that_is_no_number_is_warned_of_once() -> None:
    """It named the first epoch the best one, and let patience and plateaus run out, in silence."""
    said: list[str] = []
    for values in ((0.5, 0.6), (math.nan, 0.6), (math.nan, math.nan)):
        warn_of_no_value(state_of(*values), "val/auroc", said.append)
    assert not said
    for values in ((math.nan,), (0.5, math.nan)):
        warn_of_no_value(state_of(*values), "val/auroc", said.append)
    assert ["in epoch 1" in said[0], "in epoch 2" in said[1], len(said)] == [True, True, 2]
    assert "fine_tune.monitor: val/loss" in said[0]


def test_the_first_loss_is_warned_of_once_though_its_step_ends_an_epoch() -> None:
    recipe = make_recipe(base={"model": "digits_net", "size": 8})
    model, said = compile_recipe(recipe, TinyNet(), num_classes=2), list[str]()
    objective = Objective({"": simple_goal("classification", 2)})
    for step in (1, 0):  # behind the step, and behind the epoch that it ends
        state = TrainingState(step=step, steps=1, first_loss=70.0, chance=0.7)
        warn_of_start(state, objective, model, said.append)
    assert len(said) == 1
