"""Optimizers of several members move each as torch.optim moves it, to the bit, given its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlcompile.training.fused_optim import MemberOptimizer, member_optimizer
from tlcompile.training.groups import Group
from tlcompile.training.optim import OPTIMIZERS

SHAPE = (3, 11)
OPTIONS: list[tuple[str, list[dict[str, Any]]]] = [
    ("sgd", [{}, {"weight_decay": 0.1}]),
    ("sgd", [{"momentum": 0.9}, {"momentum": 0.3, "dampening": 0.2}, {}]),
    ("sgd", [{"momentum": m, "nesterov": True, "weight_decay": m / 9} for m in (0.9, 0.5)]),
    ("adam", [{}, {"weight_decay": 0.1, "betas": (0.5, 0.9)}, {"eps": 1e-2}]),
    ("adam", [{"amsgrad": True}, {"amsgrad": True, "weight_decay": 0.3}]),
    ("adamw", [{}, {"weight_decay": 0.0}, {"weight_decay": 0.5, "eps": 1e-3, "betas": (0.7, 0.8)}]),
    ("adamw", [{"amsgrad": True, "weight_decay": 0.2}, {"amsgrad": True}]),
]


def rules(name: str, options: list[dict[str, Any]]) -> list[Group]:
    return [Group("all", ("w",), name, 0.03 * (k + 1), one) for k, one in enumerate(options)]


def gradients(members: int, step: int) -> Tensor:
    return torch.randn(members, *SHAPE, generator=torch.Generator().manual_seed(step))


def moved(optimizer: MemberOptimizer, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.set_factors([0.5 if step > 2 else 1.0] * len(optimizer.rules))
        optimizer.step(gradients(len(optimizer.rules), step))


def by_torch(rule: Group, start: Tensor, place: int, members: int, steps: int) -> Any:
    parameter = nn.Parameter(start.clone())
    build: Any = OPTIMIZERS[rule.optimizer]
    own = build([parameter], lr=rule.lr, **rule.options)
    for step in range(steps):
        own.param_groups[0]["lr"] = rule.lr * (0.5 if step > 2 else 1.0)
        parameter.grad = gradients(members, step)[place].clone()
        own.step()
    return parameter.detach(), own.state[parameter]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_each_row_moves_as_torch_moves_it(name: str, options: list[dict[str, Any]]) -> None:
    start = torch.randn(len(options), *SHAPE)
    weight = start.clone()
    optimizer = member_optimizer(rules(name, options), weight)
    moved(optimizer, 0, 6)
    for place, rule in enumerate(rules(name, options)):
        wanted, state = by_torch(rule, start[place], place, len(options), 6)
        assert torch.equal(weight[place], wanted)
        mine = optimizer.tensors(place)
        assert mine.keys() == state.keys()
        assert all(torch.equal(mine[key], value) for key, value in state.items())


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_loaded_goes_on_as_uninterrupted(name: str, options: list[dict[str, Any]]) -> None:
    start = torch.randn(len(options), *SHAPE)
    whole, first = start.clone(), start.clone()
    moved(member_optimizer(rules(name, options), whole), 0, 6)
    for stop in (0, 4):
        first = start.clone()
        before = member_optimizer(rules(name, options), first)
        moved(before, 0, stop)
        after = member_optimizer(rules(name, options), first)
        after.load([before.tensors(place) for place in range(len(options))])
        moved(after, stop, 6)
        assert torch.equal(first, whole)


def test_who_leaves_does_not_change_the_others() -> None:
    own = rules("adamw", [{}, {"weight_decay": 0.5}, {"betas": (0.5, 0.6)}])
    start = torch.randn(3, *SHAPE)
    optimizer = member_optimizer(own, start.clone())
    optimizer.step(gradients(3, 0))
    left = optimizer.weight[[0, 2]]
    optimizer.keep([0, 2], left)
    optimizer.step(gradients(3, 1)[[0, 2]])
    whole = member_optimizer(own, start.clone())
    moved(whole, 0, 2)
    assert torch.equal(optimizer.weight, whole.weight[[0, 2]])


@pytest.mark.parametrize(
    ("one", "other"),
    [(("sgd", {}), ("adam", {})), (("adam", {"amsgrad": True}), ("adam", {})),
     (("rmsprop", {}), ("rmsprop", {}))],
)  # fmt: skip
def test_what_is_no_number_is_refused(one: Any, other: Any) -> None:
    mixed = [Group("all", ("w",), name, 0.1, options) for name, options in (one, other)]
    with pytest.raises(ValueError, match="do not train as one"):
        member_optimizer(mixed, torch.randn(2, *SHAPE))
