"""torch.optim's optimizers by name: every option works, and state is saved by parameter name."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from tlcompile.errors.resume import OtherStateError
from tlcompile.recipe.fine_tune import FineTune
from tlcompile.recipe.optimizers import OneOptimizer
from tlcompile.training.groups import Group
from tlcompile.training.optim import FUSED, OPTIMIZERS, Optimizers, has_fused

NAMES = list(OPTIMIZERS)

# A value of each option that is not its default, beside what it needs to have an effect.
OPTIONS: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "sgd": [
        ({}, {"momentum": 0.9}),
        ({"momentum": 0.9}, {"dampening": 0.5}),
        ({"momentum": 0.9}, {"nesterov": True}),
        ({}, {"weight_decay": 0.1}),
    ],
    "adam": [({}, {"betas": (0.5, 0.7)}), ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1}),
             ({"betas": (0.5, 0.5)}, {"amsgrad": True})],
    "adamw": [({}, {"betas": (0.5, 0.7)}), ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1}),
              ({"betas": (0.5, 0.5)}, {"amsgrad": True})],
    "nadam": [({}, {"betas": (0.5, 0.7)}), ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1}),
              ({}, {"momentum_decay": 0.5}),
              ({"weight_decay": 0.1}, {"decoupled_weight_decay": True})],
    "radam": [({}, {"betas": (0.5, 0.9)}), ({"betas": (0.5, 0.9)}, {"eps": 0.1}), ({}, {"weight_decay": 0.1}),
              ({"weight_decay": 0.1}, {"decoupled_weight_decay": True})],
    "adamax": [({}, {"betas": (0.5, 0.7)}), ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1})],
    "rmsprop": [({}, {"alpha": 0.5}), ({}, {"momentum": 0.9}), ({}, {"centered": True}),
                ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1})],
    "adagrad": [({}, {"lr_decay": 0.5}), ({}, {"initial_accumulator_value": 0.5}),
                ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1})],
    "adadelta": [({}, {"rho": 0.5}), ({}, {"eps": 0.1}), ({}, {"weight_decay": 0.1})],
    "asgd": [({}, {"lambd": 1.0}), ({"lambd": 1.0}, {"alpha": 2.0}), ({}, {"weight_decay": 0.1})],
    "rprop": [({}, {"etas": (0.1, 3.0)}), ({}, {"step_sizes": (0.1, 0.2)})],
    "adafactor": [({}, {"beta2_decay": -0.1}), ({}, {"eps": (None, 1.0)}), ({}, {"d": 1.5}),
                  ({}, {"weight_decay": 0.1})],
    "muon": [({}, {"weight_decay": 0.5}), ({}, {"momentum": 0.5}), ({}, {"nesterov": False}),
             ({}, {"ns_coefficients": (2.0, -1.5, 0.5)}), ({}, {"eps": 50.0}), ({}, {"ns_steps": 2}),
             ({}, {"adjust_lr_fn": "match_rms_adamw"})],
}  # fmt: skip
ROWS = [(name, base, own) for name, rows in OPTIONS.items() for base, own in rows]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def moved(name: str, model: nn.Module) -> dict[str, nn.Parameter]:
    """Muon takes matrices alone."""
    return {n: p for n, p in model.named_parameters() if name != "muon" or p.dim() == 2}


def one(name: str, model: nn.Module, lr: float = 0.05, **options: Any) -> Optimizers:
    parameters = moved(name, model)
    return Optimizers([Group("all", tuple(parameters), name, lr, options)], parameters)


def step(model: nn.Module, optimizers: Any, number: int) -> None:
    rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(number))
    optimizers.zero_grad()
    (model(rows) - 3).square().sum().backward()
    optimizers.step()


def trained(name: str, steps: int = 8, **options: Any) -> list[Tensor]:
    model = net()
    optimizers = one(name, model, **options)
    for number in range(steps):
        step(model, optimizers, number)
    return [p.detach() for p in moved(name, model).values()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def in_the_recipe(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe's options become; a list stands for a tuple in YAML."""
    written = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return FineTune.model_validate({"optimizer": {"name": name, **written}}).optimizer.options()


def test_every_optimizer_of_the_recipe_is_built_and_each_of_its_options_has_a_row() -> None:
    sections = {
        get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(OneOptimizer)
    }
    assert sections.keys() == OPTIMIZERS.keys() == OPTIONS.keys()
    for name, kind in sections.items():
        wanted = kind.model_fields.keys() - {"name", "lr", "others_lr"}
        assert {key for _, own in OPTIONS[name] for key in own} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_torch(name: str) -> None:
    theirs = OPTIMIZERS[name]([nn.Parameter(torch.zeros(2, 2))]).defaults
    for key, value in in_the_recipe(name, {}).items():
        assert theirs[key] == value, key


@pytest.mark.parametrize(
    ("name", "base", "own"), ROWS, ids=[f"{n}-{next(iter(o))}" for n, _, o in ROWS]
)
def test_every_option_changes_the_training_as_it_does_in_torch(
    name: str, base: dict[str, Any], own: dict[str, Any]
) -> None:
    plain = trained(name, **in_the_recipe(name, base))
    ours = trained(name, **in_the_recipe(name, {**base, **own}))
    model = net()
    theirs: Any = OPTIMIZERS[name]
    optimizer = theirs(list(moved(name, model).values()), lr=0.05, **base, **own)
    for number in range(8):
        step(model, optimizer, number)
    assert same(ours, [p.detach() for p in moved(name, model).values()])
    assert not same(ours, plain)


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_to_the_bit_from_saved_state(name: str) -> None:
    model = net()
    first = one(name, model)
    for number in range(3):
        first.set_factor(1 / (1 + number))
        step(model, first, number)
    again = copy.deepcopy(model)
    second = one(name, again)
    second.load({path: value.clone() for path, value in first.tensors().items()})
    for number in range(3, 6):
        for each, optimizers in ((model, first), (again, second)):
            optimizers.set_factor(1 / (1 + number))
            step(each, optimizers, number)
        assert same(list(model.parameters()), list(again.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_state_from_before_the_first_step_is_that_of_a_new_optimizer(name: str) -> None:
    model = net()
    optimizers = one(name, model)
    optimizers.load(one(name, net()).tensors())
    step(model, optimizers, 0)
    other = net()
    step(other, one(name, other), 0)
    assert same(list(model.parameters()), list(other.parameters()))


def test_state_is_named_by_parameter() -> None:
    model = net()
    optimizers = one("adam", model)
    step(model, optimizers, 0)
    tensors = optimizers.tensors()
    assert {"0.weight/exp_avg", "0.weight/exp_avg_sq", "0.weight/step"} <= tensors.keys()
    assert tensors["2.bias/exp_avg"].shape == (3,)


def two_kinds(model: nn.Module) -> Optimizers:
    groups = [
        Group("first", ("0.weight", "0.bias"), "sgd", 0.1, {"momentum": 0.9}),
        Group("slow", ("2.weight",), "adamw", 0.001, {"weight_decay": 0.0}),
        Group("fast", ("2.bias",), "adamw", 0.01, {"weight_decay": 0.5}),
    ]
    return Optimizers(groups, dict(model.named_parameters()))


def test_groups_of_several_optimizers_train_as_each_alone() -> None:
    model, other = net(), net()
    ours = two_kinds(model)
    sgd = torch.optim.SGD(other[0].parameters(), lr=0.1, momentum=0.9)
    slow = torch.optim.AdamW([other[2].weight], lr=0.001, weight_decay=0.0)
    fast = torch.optim.AdamW([other[2].bias], lr=0.01, weight_decay=0.5)
    for number in range(4):
        step(model, ours, number)
        rows = torch.randn(8, 5, generator=torch.Generator().manual_seed(number))
        other.zero_grad()
        (other(rows) - 3).square().sum().backward()
        for each in (sgd, slow, fast):
            each.step()
    assert same(list(model.parameters()), list(other.parameters()))
    assert [type(each).__name__ for each in ours.each] == ["SGD", "AdamW"]


def test_a_factor_scales_each_group_from_its_own_rate() -> None:
    optimizers = two_kinds(net())
    optimizers.set_factor(0.5)
    optimizers.set_factor(0.25)
    assert optimizers.rates() == {"first": 0.1 * 0.25, "slow": 0.001 * 0.25, "fast": 0.01 * 0.25}


def test_state_of_several_optimizers_is_one_mapping() -> None:
    model = net()
    optimizers = two_kinds(model)
    for number in range(2):
        step(model, optimizers, number)
    again = copy.deepcopy(model)
    other = two_kinds(again)
    other.load(optimizers.tensors())
    for each, moving in ((model, optimizers), (again, other)):
        step(each, moving, 2)
    assert same(list(model.parameters()), list(again.parameters()))


def without(tensors: dict[str, Tensor], path: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != path}


def damaged() -> Iterator[tuple[str, dict[str, Tensor], tuple[str, ...], tuple[str, ...]]]:
    model = net()
    optimizers = one("adam", model)
    step(model, optimizers, 0)
    good = {path: value.clone() for path, value in optimizers.tensors().items()}
    yield "missing", without(good, "0.bias/exp_avg"), ("0.bias",), ()
    yield "left over", {**good, "9.bias/step": torch.ones(())}, (), ("9.bias",)
    yield "of another shape", {**good, "2.weight/exp_avg": torch.ones(4)}, ("2.weight",), ()
    first = {"0.bias/none": torch.empty(0)}
    yield "of others", first, ("0.weight", "2.weight", "2.bias"), ()


@pytest.mark.parametrize("case", list(damaged()), ids=lambda case: case[0])
def test_state_that_does_not_fit_is_refused_and_nothing_is_loaded(case: Any) -> None:
    _, tensors, missing, left_over = case
    optimizers = one("adam", net())
    with pytest.raises(OtherStateError) as caught:
        optimizers.load(tensors)
    assert (caught.value.missing, caught.value.left_over) == (missing, left_over)
    assert all(path.endswith("/none") for path in optimizers.tensors())


def test_a_changed_option_that_wants_other_state_is_refused() -> None:
    model = net()
    plain = one("sgd", model)
    step(model, plain, 0)
    with pytest.raises(OtherStateError, match="4 tensors"):
        one("sgd", model, momentum=0.9).load(plain.tensors())


def test_a_parameter_that_had_no_gradient_has_no_state_and_is_loaded_so() -> None:
    model = net()
    optimizers = one("adam", model)
    model[2].bias.requires_grad_(False)
    step(model, optimizers, 0)
    tensors = optimizers.tensors()
    assert tensors["2.bias/none"].numel() == 0
    again = one("adam", model)
    again.load(tensors)
    assert again.tensors().keys() == tensors.keys()


def test_a_cpu_takes_the_plain_loop_whose_bits_are_those_of_torch_s_default() -> None:
    assert not has_fused(torch.device("cpu"))
    assert has_fused(torch.device("cuda", 0))


@pytest.mark.parametrize("name", NAMES)
def test_fused_is_taken_where_the_optimizer_has_it(name: str) -> None:
    model = net()
    parameters = moved(name, model)
    group = Group("all", tuple(parameters), name, 0.01)
    (optimizer,) = Optimizers([group], parameters, fused=True).each
    assert bool(optimizer.param_groups[0].get("fused")) == (name in FUSED)
    if name == "adamw":
        step(model, optimizer, 0)  # a CPU can run it, too
