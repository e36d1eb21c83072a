"""The plan's table of rates: each group of each phase, and what changes between two phases."""

from __future__ import annotations

from typing import Any

import pytest
from graph.tiny import Residual, recipe, recipe_of

from tlcompile.compiler import compile_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.costs import costs_of
from tlcompile.run.plan import Plan, make_plan
from tlcompile.run.plan_diff import differences
from tlcompile.run.plan_text import plan_text

TEXT = """\
base: {model: own, size: 16}
freeze: head
fine_tune:
  optimizer: {name: sgd, lr: 0.5}
  schedule: {name: cosine, min: 0.5, warmup: 0.25}
  groups: {stem: {lr: 0.125, weight_decay: 0.25}}
  phases:
    - {name: head, epochs: 1}
    - {name: all, freeze: none, epochs: 2, lr: 0.25, schedule: {name: step, every: 1}, batch_size: 8}
    - {name: part, freeze: layer1, until: {plateau: 3}, restore_best: true, schedule: {name: one_cycle}}
"""


def plan_of(made: Recipe) -> Plan:
    first, *later = (compile_recipe(p, base=Residual(), num_classes=3) for p in made.phases())
    return make_plan(made, first, None, later)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(recipe_of(TEXT))


def test_each_group_of_each_phase_has_a_row(plan: Plan) -> None:
    rows = [(r.phase, r.group, r.trains, r.tensors, r.epochs, r.batch_size) for r in plan.rates]
    assert rows == [
        ("head", "all", ("fc",), 2, 1, 32),
        ("all", "stem", ("stem",), 2, 2, 8),
        ("all", "all", ("layer1", "down", "fc"), 16, 2, 8),
        ("part", "all", ("down", "fc"), 4, 100, 32),
    ]


def test_a_rate_is_told_at_the_start_and_at_the_end_of_its_phase(plan: Plan) -> None:
    ends = [(r.lr, r.lr_end) for r in plan.rates]
    assert ends[0] == (0.5, 0.5)  # an epoch has one rate
    assert ends[1:3] == [(0.125, pytest.approx(0.0125)), (0.25, pytest.approx(0.025))]
    assert ends[3] == (pytest.approx(0.02), pytest.approx(2e-6))
    assert [r.weight_decay for r in plan.rates] == [0, 0.25, 0, 0]
    assert [(r.schedule, r.warmup) for r in plan.rates][:2] == [("cosine", 0.25), ("step", 0)]


def test_each_edge_says_what_thaws_and_what_freezes(plan: Plan) -> None:
    edges = [(e.phase, e.thaws, e.thawed, e.freezes, e.frozen) for e in plan.edges]
    assert edges == [
        ("all", ("stem", "layer1", "down"), 16, (), 0),
        ("part", (), 0, ("stem", "layer1"), 14),
    ]


def test_the_text_tells_rates_edges_and_ends(plan: Plan) -> None:
    told = [" ".join(line.split()) for line in plan_text(recipe_of(TEXT), plan).splitlines()]
    assert "head all fc 2 39 sgd 0.5 0 cosine, warm-up 25% 1 32" in told
    assert "all stem stem 2 224 sgd 0.125 → 0.0125 0.25 step 2 8" in told
    assert "edge all: 16 tensors thaw: stem, layer1, down" in told
    assert "edge part: 14 freeze: stem, layer1" in told
    notes = " ".join(told)
    assert "phase part: ends after 3 epochs without gain, 100 at most" in notes
    assert "phase part: ends with the weights of its best epoch" in notes
    assert "does not train phases yet" not in notes


def test_rates_of_two_plans_differ_group_by_group() -> None:
    made = [recipe_of(TEXT.replace("lr: 0.125", f"lr: {lr}")) for lr in ("0.125", "0.0625")]
    one, two = ((each, plan_of(each)) for each in made)
    (found,) = [d for d in differences(one, two) if d.what == "rate"]
    assert found.name == "all: stem"
    assert "lr 0.125 → 0.0125, decay 0.25, step, 2 epochs" in found.this
    assert "lr 0.0625 → 0.00625" in found.other


@pytest.mark.parametrize(
    ("schedule", "note"),
    [
        ({"name": "step", "every": 3}, "step at epoch 3: not reached in 3"),
        ({"name": "multistep", "at": [1, 4]}, "step at epoch 4: not reached in 3"),
        ({"name": "cosine_restarts", "every": 3}, "restart at epoch 3: not reached in 3"),
        ({"name": "plateau", "patience": 3}, "plateau of 3 epochs: not reached in 3"),
        ({"name": "constant", "warmup": 4}, "warm-up of 4 epochs: not over in 3"),
        ({"name": "step", "every": 2}, ""),
        ({"name": "constant", "warmup": 3}, ""),
    ],
    ids=str,
)
def test_what_a_schedule_does_not_reach_is_a_note(schedule: dict[str, Any], note: str) -> None:
    made = recipe(freeze="head", fine_tune={"epochs": 3, "schedule": schedule})
    assert [n for n in plan_of(made).notes if "not " in n] == ([note] if note else [])


@pytest.mark.parametrize(("patience", "note"), [(3, True), (2, False)])
def test_an_early_stop_that_comes_too_late_is_a_note(patience: int, note: bool) -> None:
    made = recipe(freeze="head", fine_tune={"epochs": 3, "early_stop": {"patience": patience}})
    told = "early_stop of 3 epochs: not reached in 3"
    assert (told in plan_of(made).notes) == note
    phases = [{"name": "a", "epochs": 3, "until": {"plateau": patience}}]
    made = recipe(freeze="head", fine_tune={"phases": phases})
    assert ("phase a: until plateau of 3 epochs: not reached in 3" in plan_of(made).notes) == note


def test_a_plan_of_rprop_says_that_no_schedule_changes_it() -> None:
    made = recipe(freeze="head", fine_tune={"optimizer": {"name": "rprop"}})
    assert any("no schedule changes it" in note for note in plan_of(made).notes)
    assert plan_of(made).rates[0].weight_decay is None
    assert " - " in plan_text(made, plan_of(made))


STATE = {
    "sgd": 0, "adam": 2, "adamw": 2, "nadam": 2, "radam": 2, "adamax": 2, "rmsprop": 1,
    "adagrad": 1, "adadelta": 2, "asgd": 1, "rprop": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", STATE)
def test_memory_counts_what_the_optimizer_keeps(name: str) -> None:
    made = recipe(freeze="head", fine_tune={"optimizer": {"name": name}})
    costs = costs_of(made, compile_recipe(made, base=Residual(), num_classes=3))
    assert costs.state == STATE[name] * costs.gradients


def test_memory_counts_each_group_s_optimizer() -> None:
    tune = {"optimizer": {"name": "sgd"}, "groups": {"down": {"optimizer": {"name": "adam"}}}}
    made = recipe(freeze="layer1", fine_tune=tune)
    costs = costs_of(made, compile_recipe(made, base=Residual(), num_classes=3))
    assert costs.state == 4 * 2 * (8 * 12 + 12)
