"""Phases trained without a recipe: everything said in Python, small defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tlcompile.features.sources import Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.goal import simple_goal
from tlcompile.training.groups import Group
from tlcompile.training.loop import EpochDone, PhaseTrainer, Settings
from tlcompile.training.objective import Objective
from tlcompile.training.optim import Optimizers
from tlcompile.training.proof import FreezeProof
from tlcompile.training.schedule import build_schedule
from tlcompile.training.state import EpochRow

NUMBERS = ("epochs", "batch_size", "seed", "monitor", "rising", "name", "accumulate",
           "micro_batch", "patience", "min_delta")  # fmt: skip


def phase_trainer(
    model: CompiledModel, train: Source, val: Source | None, **changes: Any
) -> PhaseTrainer:
    """Return what trains a model; changes: of Settings and of PhaseTrainer; `lr`, `optimizer`."""
    numbers = {"epochs": 4, "batch_size": 4, "seed": 0, "monitor": "train/loss", "rising": False}
    numbers |= {name: changes.pop(name) for name in NUMBERS if name in changes}
    names = tuple(name for name, _ in model.trainable())
    kind, lr = changes.pop("optimizer", "sgd"), changes.pop("lr", 0.1)
    groups = (Group("all", names, kind, lr, changes.pop("options", {})),)
    given: dict[str, Any] = {
        "objective": Objective({"": simple_goal("classification", 2)}),
        "optimizers": Optimizers(groups, dict(model.trainable())),
        "schedule": build_schedule("constant"),
        "settings": Settings(**numbers),
        **changes,
    }
    given.setdefault("proof", FreezeProof.take(model))
    return PhaseTrainer(model, train, val, **given)


def epochs_of(trainer: PhaseTrainer) -> list[tuple[EpochRow, bool]]:
    """Train to the end; return each epoch, and whether it was the best so far."""
    done = [event for event in trainer.run() if isinstance(event, EpochDone)]
    return [(event.row, event.is_best) for event in done]


def own_loss(loss: Callable[[Any, Any], Tensor]) -> Objective:
    """Return the objective of a loss of one's own."""
    return Objective.of_loss(loss)


def plain_sgd(
    model: CompiledModel, lr: float = 0.1, momentum: float = 0.0
) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for _, p in model.trainable()], lr=lr, momentum=momentum)
