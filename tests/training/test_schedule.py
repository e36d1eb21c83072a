"""Schedules are torch's, epoch by epoch or step by step, as a pure function of where training is."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.fine_tune import FineTune
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.schedules import OneSchedule
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.training.schedule import SCHEDULES, When, build_schedule

EPOCHS, STEPS = 12, 5
Build = Callable[[torch.optim.Optimizer], Any]

# As a recipe has it, and torch's own, stepped once an epoch.
BY_EPOCH: list[tuple[dict[str, Any], Build]] = [
    ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ({"name": "step", "every": 3}, lambda o: lr_scheduler.StepLR(o, 3, 0.1)),
    ({"name": "step", "every": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
    ({"name": "multistep", "at": [2, 7]}, lambda o: lr_scheduler.MultiStepLR(o, [2, 7], 0.1)),
    (
        {"name": "multistep", "at": 4, "gamma": 0.5},
        lambda o: lr_scheduler.MultiStepLR(o, [4], 0.5),
    ),
    ({"name": "exponential"}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    ({"name": "exponential", "gamma": 0.5}, lambda o: lr_scheduler.ExponentialLR(o, 0.5)),
    ({"name": "linear"}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, EPOCHS)),
    ({"name": "linear", "min": 0.25}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.25, EPOCHS)),
    ({"name": "polynomial"}, lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 1.0)),
    ({"name": "polynomial", "power": 2.0}, lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 2.0)),
    ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS)),
    ({"name": "cosine", "min": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, 0.1)),
    (
        {"name": "cosine_restarts", "every": 3, "growth": 2, "min": 0.1},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 0.1),
    ),
    (
        {"name": "cosine_restarts", "every": 4},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    ),
]


def factor_of(section: dict[str, Any], *, rising: bool = True) -> Callable[[When], float]:
    schedule = FineTune.model_validate({"schedule": section}).schedule
    return build_schedule(schedule.name, rising=rising, **schedule.options())


def ours(section: dict[str, Any], epochs: int = EPOCHS, steps: int = STEPS) -> list[float]:
    factor = factor_of(section)
    return [factor(When(step, steps, epochs)) for step in range(epochs * steps)]


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def theirs(build: Build, count: int) -> list[float]:
    moving = optimizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants a step of the optimizer first
        scheduler = build(moving)
        rates = []
        for _ in range(count):
            rates.append(moving.param_groups[0]["lr"])
            scheduler.step()
    return rates


def label(row: Any) -> str:
    return "-".join(map(str, row.values())) if isinstance(row, dict) else ""


@pytest.mark.parametrize(("section", "build"), BY_EPOCH, ids=label)
def test_a_schedule_by_epoch_is_torch_s(section: dict[str, Any], build: Build) -> None:
    by_step = ours(section)
    assert by_step == [by_step[step - step % STEPS] for step in range(len(by_step))]
    assert by_step[::STEPS] == pytest.approx(theirs(build, EPOCHS), rel=1e-12, abs=1e-12)


def test_a_cosine_and_a_step_keep_the_bits_that_they_had() -> None:
    cosine = [0.5 * (1 + math.cos(math.pi * epoch / 7)) for epoch in range(7)]
    assert ours({"name": "cosine"}, epochs=7)[::STEPS] == cosine
    steps = [float(0.1 ** (epoch // 2)) for epoch in range(7)]
    assert ours({"name": "step", "every": 2}, epochs=7)[::STEPS] == steps


@pytest.mark.parametrize(
    "options", [{}, {"rise": 0.5}, {"start": 0.1}, {"end": 0.01}, {"shape": "linear"}], ids=str
)
def test_one_cycle_is_torch_s_step_by_step(options: dict[str, Any]) -> None:
    said = {"rise": 0.3, "start": 0.04, "end": 4e-6, "shape": "cosine", **options}

    def build(moving: torch.optim.Optimizer) -> Any:
        return lr_scheduler.OneCycleLR(
            moving,
            max_lr=1.0,
            total_steps=EPOCHS * STEPS,
            pct_start=said["rise"],
            div_factor=1 / said["start"],
            final_div_factor=said["start"] / said["end"],
            anneal_strategy={"cosine": "cos", "linear": "linear"}[said["shape"]],
            cycle_momentum=False,
        )

    found = ours({"name": "one_cycle", **options})
    assert found == pytest.approx([*theirs(build, EPOCHS * STEPS - 1), said["end"]], rel=1e-9)
    assert max(found) == pytest.approx(1, abs=0.02)


VALUES = (0.1, 0.5, 0.4, 0.5, 0.3, 0.55, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2)


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"factor": 0.5}, {"patience": 1}, {"min_delta": 0.06}, {"min": 0.4}],
    ids=str,
)
def test_a_plateau_is_torch_s(options: dict[str, Any], rising: bool) -> None:
    said = {"factor": 0.3, "patience": 2, "min_delta": 0.0, "min": 0.0, **options}
    moving = optimizer()
    scheduler = lr_scheduler.ReduceLROnPlateau(
        moving,
        mode="max" if rising else "min",
        factor=said["factor"],
        patience=said["patience"] - 1,  # torch counts the epochs that it lets pass
        threshold=said["min_delta"],
        threshold_mode="abs",
        min_lr=said["min"],
        eps=0.0,
    )
    factor = factor_of({"name": "plateau", **said}, rising=rising)
    for epoch in range(len(VALUES) + 1):
        here = When(epoch * STEPS, STEPS, 20, VALUES[:epoch])
        assert factor(here) == pytest.approx(moving.param_groups[0]["lr"], rel=1e-12)
        if epoch < len(VALUES):
            scheduler.step(VALUES[epoch])
    assert factor(here) < 1


def test_a_plateau_does_not_take_nan_for_a_gain() -> None:
    factor = factor_of({"name": "plateau", "patience": 2}, rising=False)
    assert factor(When(0, 1, 9, (0.5, math.nan, math.nan))) == pytest.approx(0.1)


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 6), (0.5, 30), (2, 10), (1.0, 5), (0.001, 1)])
def test_a_warm_up_grows_step_by_step_on_top_of_the_schedule(warmup: float, steps: int) -> None:
    plain = ours({"name": "exponential"})

    def build(moving: torch.optim.Optimizer) -> Any:
        return lr_scheduler.LinearLR(moving, 1 / steps, 1.0, max(1, steps - 1))

    growing = theirs(build, len(plain)) if steps > 1 else [1.0] * len(plain)
    warm = ours({"name": "exponential", "warmup": warmup})
    assert warm == pytest.approx([a * b for a, b in zip(plain, growing, strict=True)], rel=1e-12)
    assert warm[steps:] == plain[steps:]


def test_a_factor_depends_on_nothing_but_where_training_is() -> None:
    factor = factor_of({"name": "plateau", "warmup": 0.2})
    here = When(7, 5, 4, (0.3, 0.2))
    before = factor(here)
    factor(When(19, 5, 4, (0.1,) * 3))
    assert factor(here) == before
    assert (here.epoch, here.steps) == (1, 20)


def test_every_schedule_of_the_recipe_is_there_with_its_options() -> None:
    names = [get_args(kind.model_fields["name"].annotation)[0] for kind in get_args(OneSchedule)]
    assert set(names) == set(SCHEDULES)


@pytest.mark.parametrize(
    ("schedule", "place", "words"),
    [
        ("{name: cosine, gamma: 0.5}", "3:28", "gamma"),
        ("{name: step}", "3:13", "every"),
        ("{name: step, every: 0}", "3:33", "at least 1"),
        ("{name: multistep, at: [3, 3]}", "3:13", "each once"),
        ("{name: one_cycle, warmup: 0.1}", "3:31", "warmup"),
        ("{name: one_cycle, rise: 1.0}", "3:37", "below 1"),
        ("{name: plateau, factor: 1.0}", "3:37", "below 1"),
        ("{name: cosine, min: 1.0}", "3:33", "below 1"),
        ("{name: cosin}", "3:20", "cosine"),
        ("{name: constant, warmup: -1}", "3:38", "at least 0"),
    ],
)
def test_a_wrong_schedule_is_refused_at_its_place(schedule: str, place: str, words: str) -> None:
    text = f"base: {{model: m}}\nfine_tune:\n  schedule: {schedule}\n"
    with pytest.raises(TLCompileError) as caught:
        recipe_from(spell_out(read_recipe_text(text, "r.yaml")), (), "r")
    assert f"r.yaml:{place}" in str(caught.value)
    assert words in str(caught.value)
