"""Settings of rates that nothing takes are refused at their place, before anything trains."""

from __future__ import annotations

import pytest
from graph.tiny import Residual, recipe_of

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.recipe.scalars import to_yaml
from tlcompile.run.folder import resolved
from tlcompile.run.refuse_rates import refuse_unfit_rates

TEXT = """\
base: {model: own, size: 16}
freeze: layer1
remove: {fc: replace}
add:
  fc: {layer: linear, out: classes, inputs: flatten, lr: 0.5}
fine_tune:
  optimizer: {name: sgd, lr: 0.1, weight_decay: 0.1}
  groups: {down: {lr: 0.2}}
  no_decay: bias
"""


def refuse(text: str, *, swept: bool = False) -> None:
    recipe = recipe_of(text)
    models = [compile_recipe(p, base=Residual(), num_classes=3) for p in recipe.phases()]
    refuse_unfit_rates(recipe, models, swept=swept)


def test_settings_that_are_taken_are_not_refused() -> None:
    refuse(TEXT)


GROUPS = "{down: {lr: 0.2}}"

IDLE = [
    ("no_decay: bias", "bias_lr_factor: 2.0\n  no_decay: embedding", "10:13", "no weight decay"),
    ("no_decay: bias", "layer_decay: 0.5", "9:16", "no layer that trains lies in a stage"),
    (", weight_decay: 0.1", "", "9:13", "no weight decay is left"),
    ("{name: sgd, lr: 0.1, weight_decay: 0.1}", "rprop\n  epochs: 1", "10:13", "no weight decay"),
    (GROUPS, "{fc: {lr: 0.2}}", "8:21", "inner names say more"),
    (GROUPS, "{down: {lr: 0.2}, avgpool: {lr: 0.2}}", "8:43", "there is none"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        *IDLE,
        (GROUPS, "{layer1: {lr: 0.2}}", "8:20", "'layer1' has settings of its own and is frozen"),
        (GROUPS, "{dwn: {lr: 0.2}}", "8:17", "did you mean 'down'?"),
        (GROUPS, "{stage9: {lr: 0.2}}", "8:20", "stage"),
        (GROUPS, "{down: {lr: 0}}", "8:23", "above 0"),
        (GROUPS, "{down: {lr: 1, optimizer: {name: sgd, lr: 1}}}", "8:18", "drop one of the two"),
        (GROUPS, "{down: {optimizer: {betas: [0.5, 0.5]}}}", "8:30", "name"),
        ("lr: 0.5}", "lr: 0}", "5:58", "above 0"),
        ("{name: sgd, lr: 0.1", "{name: lbfgs, lr: 0.1", "7:14", "several times a step"),
        ("{name: sgd, lr: 0.1", "{name: sparse_adam, lr: 0.1", "7:14", "sparse gradients"),
        ("{name: sgd, lr: 0.1", "{name: sgdd, lr: 0.1", "7:21", "sgd"),
        ("lr: 0.1, weight_decay", "amsgrad: true, weight_decay", "7:26", "amsgrad"),
        ("lr: 0.1, weight_decay", "dampening: 0.5, weight_decay", "7:14", "without momentum"),
    ],
)
def test_a_setting_without_effect_is_refused_at_its_place(
    old: str, new: str, place: str, words: str
) -> None:
    assert old in TEXT
    with pytest.raises(TLCompileError) as caught:
        refuse(TEXT.replace(old, new))
    assert f"tiny.yaml:{place}" in str(caught.value)
    assert words in " ".join(str(caught.value).split())


@pytest.mark.parametrize(("old", "new"), [(row[0], row[1]) for row in IDLE[:3]])
def test_a_point_of_a_sweep_may_have_an_idle_setting(old: str, new: str) -> None:
    refuse(TEXT.replace(old, new), swept=True)


def test_every_idle_setting_is_told_at_once() -> None:
    text = TEXT.replace("no_decay: bias", "layer_decay: 0.5\n  no_decay: embedding")
    with pytest.raises(Problems) as caught:
        refuse(text)
    assert [error.where.line for error in caught.value.errors if error.where] == [9, 10]


PHASES = TEXT + """\
  phases:
    - {name: head, freeze: head, epochs: 1}
    - {name: all, epochs: 1}
"""  # fmt: skip


def test_a_setting_that_one_phase_takes_is_not_refused() -> None:
    head = "    - {name: head, freeze: head, epochs: 1}\n"
    refuse(PHASES)
    refuse(PHASES.replace(head, "") + head)


def test_a_group_that_is_frozen_in_every_phase_is_refused_once() -> None:
    with pytest.raises(TLCompileError) as caught:
        refuse(PHASES.replace(GROUPS, "{stem: {lr: 0.2}}"))
    assert "tiny.yaml:8:18" in str(caught.value)
    assert "'stem' has settings of its own and is frozen throughout" in str(caught.value)


OWN = """\
base: {model: own, size: 16}
freeze: layer1
fine_tune:
  optimizer: {name: sgd, lr: 0.1}
  phases: [{name: a, epochs: 1, FIRST}, {name: b, epochs: 1, SECOND}]
"""
BESIDE_PHASES = [
    ("freeze: stem", "freeze: none", "freeze", "2:9"),
    ("lr: 0.1", "lr: 0.2", "fine_tune.optimizer.lr", "4:30"),
    ("optimizer: {name: adam}", "optimizer: {name: sgd}", "fine_tune.optimizer", "4:14"),
    ("lr: 0.1", "optimizer: {name: sgd, lr: 1}", "fine_tune.optimizer.lr", "4:30"),
]


@pytest.mark.parametrize(("first", "second", "line", "place"), BESIDE_PHASES)
def test_a_setting_that_every_phase_has_for_itself(
    first: str, second: str, line: str, place: str
) -> None:
    text = OWN.replace("FIRST", first).replace("SECOND", second)
    with pytest.raises(TLCompileError) as caught:
        refuse(text)
    assert f":{place}: {line} has no effect" in str(caught.value)
    refuse(text, swept=True)
    refuse(OWN.replace("FIRST", first).replace(", SECOND", ""))


def test_the_recipe_that_a_run_writes_down_is_not_refused() -> None:
    text = OWN.replace("freeze: layer1\n", "").replace(", lr: 0.1}", "}")
    text = text.replace("FIRST", "lr: 0.1, freeze: stem").replace("SECOND", "lr: 1, freeze: none")
    refuse(text)
    refuse(to_yaml(resolved(recipe_of(text))))
