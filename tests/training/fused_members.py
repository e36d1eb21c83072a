"""Members of a sweep for tests, and what trains each of them alone."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import torch

from tlcompile.model.compiled import CompiledModel
from tlcompile.training.fused import FusedEpoch, FusedTrainer
from tlcompile.training.fused_block import Member
from tlcompile.training.fused_failed import Failed
from tlcompile.training.goal import Goal
from tlcompile.training.groups import Group
from tlcompile.training.loop import EpochDone, PhaseTrainer, Settings
from tlcompile.training.losses import build_loss
from tlcompile.training.objective import Objective
from tlcompile.training.optim import Optimizers
from tlcompile.training.proof import FreezeProof
from tlcompile.training.schedule import build_schedule
from tlcompile.training.state import EpochRow


def objective(classes: int = 3, **loss: Any) -> Objective:
    task = loss.pop("task", "classification")
    names = tuple(map(str, range(classes)))
    plain = build_loss(task)
    return Objective(
        {"": Goal(task=task, classes=names, loss=build_loss(task, **loss), plain=plain)}
    )


def member(model: CompiledModel, name: str = "a", **changes: Any) -> Member:
    """Return a member that begins as the model is; changes: of Settings, and of Member."""
    names = tuple(n for n, _ in model.trainable())
    kind, lr = changes.pop("optimizer", "sgd"), changes.pop("lr", 0.1)
    groups = changes.pop("groups", (Group("all", names, kind, lr, changes.pop("options", {})),))
    numbers = {"epochs": 3, "batch_size": 8, "seed": 0, "monitor": "val/loss", "rising": False}
    given = {k: changes.pop(k) for k in ("objective", "schedule") if k in changes}
    given.setdefault("objective", objective())
    weights = {n: p.detach().clone() for n, p in model.trainable()}
    return Member(name, weights, groups, Settings(**{**numbers, **changes}), **given)


def alone(model: CompiledModel, one: Member, train: Any, val: Any) -> PhaseTrainer:
    """Return what trains a member by itself."""
    own = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in own.trainable():
            parameter.copy_(one.weights[name])
    return PhaseTrainer(
        own, train, val, objective=one.objective, schedule=one.schedule, settings=one.settings,
        optimizers=Optimizers(one.groups, dict(own.trainable())), proof=FreezeProof.take(own),
        state=copy.deepcopy(one.state),
    )  # fmt: skip


def told(row: EpochRow) -> EpochRow:
    return replace(row, seconds=0.0)


def trained(trainer: FusedTrainer) -> dict[str, list[EpochDone]]:
    found: dict[str, list[EpochDone]] = {name: [] for name in trainer.members}
    for event in trainer.run():
        assert not isinstance(event, Failed), event
        for name, done in (event.done if isinstance(event, FusedEpoch) else {}).items():
            found[name].append(done)
    return found


def same_weights(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def assert_as_alone(
    model: CompiledModel, members: list[Member], train: Any, val: Any
) -> dict[str, list[EpochDone]]:
    singles = {one.name: alone(model, one, train, val) for one in members}
    trainer = FusedTrainer(model, train, val, members)
    found = trained(trainer)
    for one in members:
        single = singles[one.name]
        wanted = [event for event in single.run() if isinstance(event, EpochDone)]
        assert len(found[one.name]) == len(wanted)
        for mine, theirs in zip(found[one.name], wanted, strict=True):
            assert told(mine.row) == told(theirs.row), one
            assert (mine.is_best, mine.is_phase_best) == (theirs.is_best, theirs.is_phase_best)
            assert (mine.tensors is None) == (theirs.tensors is None)
            assert mine.tensors is None or same_weights(mine.tensors, theirs.tensors)
        assert same_weights(trainer.weights(one.name), dict(single.model.trainable()))
        mine_state, state = one.state.as_data(), single.state.as_data()
        assert {**mine_state, "history": [], "seconds": 0} == {**state, "history": [], "seconds": 0}
    return found


def drawn(
    draw: random.Random, model: CompiledModel, name: str, kind: str, classes: int,
    rates: tuple[float, ...] = (0.003, 0.1, 1.0),
) -> Member:  # fmt: skip
    options: dict[str, Any] = {"weight_decay": draw.choice([0.0, 0.01, 0.3])}
    if kind == "sgd":
        options["momentum"] = draw.choice([0.0, 0.5, 0.9])
    else:
        options["betas"] = draw.choice([(0.9, 0.999), (0.8, 0.9)])
        options["eps"] = draw.choice([1e-8, 1e-3])
    schedules = [
        build_schedule("constant", warmup=draw.choice([0.0, 0.4])), build_schedule("cosine"), None,
        build_schedule("one_cycle", rise=0.3, start=0.04, end=1e-4, shape="cosine"),
        build_schedule("plateau", factor=0.5, patience=1, min_delta=0.0, low=0.0, rising=False),
    ]  # fmt: skip
    numbers = {"epochs": draw.randint(1, 4), "patience": draw.choice([None, 1, 2])}
    monitor = draw.choice(["val/loss", "val/accuracy", "train/loss", "val/f1"])
    smoothing = draw.choice([0.0, 0.0, 0.1])
    return member(
        model, name, optimizer=kind, lr=draw.choice(rates), options=options,
        schedule=draw.choice(schedules), monitor=monitor, rising="loss" not in monitor,
        objective=objective(classes, label_smoothing=smoothing), **numbers,
    )  # fmt: skip
