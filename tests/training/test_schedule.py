"""Learning rates by epoch, and the optimizers that use them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tlcompile.training.optim import build_optimizer, set_rate
from tlcompile.training.schedule import rate_factor


def test_rates() -> None:
    assert [rate_factor("constant", e, 4) for e in range(4)] == [1, 1, 1, 1]
    assert [rate_factor("step", e, 5, every=2, gamma=0.1) for e in range(5)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    half = math.sqrt(0.5) / 2  # cos(pi / 4) / 2
    assert [rate_factor("cosine", e, 4) for e in range(4)] == pytest.approx(
        [1, 0.5 + half, 0.5, 0.5 - half]
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1},
    "adamw": {"betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1},
    "rmsprop": {"alpha": 0.9, "momentum": 0.5, "eps": 1e-6, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_is_in_one_group_with_its_options(name: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = build_optimizer(name, list(net.named_parameters()), lr=0.25, **OPTIONS[name])
    groups = optimizer.param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, net.parameters()))
    assert [n for group in groups for n in group["names"]] == [n for n, _ in net.named_parameters()]
    for key, value in {"lr": 0.25, **OPTIONS[name]}.items():
        assert groups[0][key] == value
    set_rate(optimizer, 0.5)
    assert groups[0]["lr"] == 0.5
    assert isinstance(
        optimizer,
        getattr(
            torch.optim,
            {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}[name],
        ),
    )
