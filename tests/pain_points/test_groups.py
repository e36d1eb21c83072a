"""Groups, rates and phases: what other tools' users met, and what happens here."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from graph.tiny import SIDE, Residual, recipe_of
from torch import Tensor

from tlcompile.compiler import compile_recipe
from tlcompile.errors.resume import OtherStateError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.groups import groups_of
from tlcompile.training.groups import Group
from tlcompile.training.optim import Optimizers
from tlcompile.training.schedule import When, build_schedule

TEXT = """\
base: {model: own, size: 16}
fine_tune:
  optimizer: {name: adamw, lr: 0.01, weight_decay: 0.5}
  phases:
    - {name: all, freeze: none, epochs: 2}
    - {name: head, freeze: head, epochs: 2}
    - {name: again, freeze: none, epochs: 4, lr: 0.001, groups: {stem: {lr: 0.1}}}
"""


def models_of(made: Recipe) -> list[CompiledModel]:
    """Compile every phase over one module tree, as a run does."""
    torch.manual_seed(0)
    first, *later = (compile_recipe(p, base=Residual(), num_classes=3) for p in made.phases())
    return [first, *(first.frozen_as(other) for other in later)]


def optimizers_of(made: Recipe, model: CompiledModel, index: int) -> Optimizers:
    return Optimizers(groups_of(made.phases()[index], model), dict(model.trainable()))


def step(model: CompiledModel, optimizers: Optimizers, seed: int = 0) -> None:
    rows = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    optimizers.zero_grad()
    model(rows).square().sum().backward()
    optimizers.step()


def values(model: CompiledModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_which_phase_trains_what_is_told_by_the_recipe_alone() -> None:
    """Lightning #21901, luxonis-train PR #358: after a resume, layers were frozen again, silently.

    What trains in a phase is the same in a fresh process and after the phases before it.
    """
    made = recipe_of(TEXT)
    after_others = models_of(made)
    fresh = [compile_recipe(phase, base=Residual(), num_classes=3) for phase in made.phases()]
    for phase, one, other in zip(made.phases(), after_others, fresh, strict=True):
        assert groups_of(phase, one) == groups_of(phase, other)
        one.hold_freeze()
        wanted = {name for group in groups_of(phase, one) for name in group.parameters}
        assert {name for name, p in one.named_parameters() if p.requires_grad} == wanted


def test_saved_state_finds_its_parameter_whatever_the_order_of_groups() -> None:
    """Lightning #6891 and #8502, detectron2 #2465, finetuning-scheduler #4: groups by position."""
    made = recipe_of(TEXT)
    model, other = models_of(made)[0], models_of(made)[0]
    (group,) = groups_of(made.phases()[0], model)
    names = list(group.parameters)
    random.Random(0).shuffle(names)
    shuffled = [
        Group("b", tuple(names[:5]), group.optimizer, group.lr, group.options),
        Group("a", tuple(names[5:]), group.optimizer, group.lr, group.options),
    ]
    first = optimizers_of(made, model, 0)
    second = Optimizers(shuffled, dict(other.trainable()))
    for number in range(2):
        step(model, first, number)
    other.load_state_dict(model.state_dict())
    second.load(first.tensors())
    step(model, first, 2)
    step(other, second, 2)
    ours, theirs = values(model), values(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_state_of_another_recipe_is_refused_by_name() -> None:
    """unsloth #3108, maskrcnn-benchmark #263: `loaded state dict has a different number of groups`."""
    made = recipe_of(TEXT)
    model = models_of(made)[0]
    whole = optimizers_of(made, model, 0)
    step(model, whole)
    head = compile_recipe(made.phases()[1], base=Residual(), num_classes=3)
    with pytest.raises(OtherStateError) as caught:
        optimizers_of(made, head, 1).load(whole.tensors())
    assert "stem.weight" in str(caught.value)
    assert "fc.weight" not in caught.value.left_over


def test_a_layer_that_thaws_late_follows_the_schedule() -> None:
    """pytorch #79888, Lightning #8720 and #12141, transformers #20029: added groups keep their rate."""
    made = recipe_of(TEXT)
    model = models_of(made)[2]
    optimizers = optimizers_of(made, model, 2)
    schedule = made.phases()[2].fine_tune.schedule
    factor = build_schedule(schedule.name, **schedule.options())
    assert optimizers.rates() == {"stem": 0.1, "all": 0.001}
    optimizers.set_factor(factor(When(6, 3, 4)))
    assert optimizers.rates() == {"stem": pytest.approx(0.05), "all": pytest.approx(0.0005)}


def test_a_plateau_counts_from_the_start_of_its_phase() -> None:
    """Lightning #12141: ReduceLROnPlateau raised IndexError once a group had been added."""
    options: dict[str, Any] = {"factor": 0.5, "patience": 1, "min_delta": 0.0, "low": 0.0}
    factor = build_schedule("plateau", rising=True, **options)
    assert [factor(When(0, 3, 9, (0.9,) * seen)) for seen in (0, 1, 2, 3)] == [1, 1, 0.5, 0.25]


def test_tensors_of_equal_values_are_both_in_an_optimizer() -> None:
    """luxonis-train PR #358 (0 of 10 parameters), opacus PR #489: compared by value, not identity."""
    made = recipe_of(TEXT)
    model = models_of(made)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    held = [
        p
        for each in optimizers_of(made, model, 0).each
        for g in each.param_groups
        for p in g["params"]
    ]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))


def test_a_layer_that_is_frozen_again_does_not_move() -> None:
    """yolov5 #1213, sparseml #965, fairseq #4702: Adam moved tensors that no longer asked for a gradient.

    Even where a gradient is left over from the phase before, it is in no group of the new one.
    """
    made = recipe_of(TEXT)
    models = models_of(made)
    models[0].hold_freeze()
    step(models[0], optimizers_of(made, models[0], 0))
    before = values(models[1])
    assert all(p.grad is not None for p in models[1].parameters())
    models[1].hold_freeze()
    optimizers = optimizers_of(made, models[1], 1)
    for number in range(3):
        step(models[1], optimizers, number)
    moved = {n for n, p in models[1].named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"fc.weight", "fc.bias"}


def test_a_layer_that_thaws_again_starts_with_no_momentum() -> None:
    """Finding of section 2.8: state of an earlier phase is another rate's, and stale."""
    made = recipe_of(TEXT)
    models = models_of(made)
    step(models[0], optimizers_of(made, models[0], 0))
    tensors = optimizers_of(made, models[2], 2).tensors()
    assert tensors
    assert all(path.endswith("/none") for path in tensors)
