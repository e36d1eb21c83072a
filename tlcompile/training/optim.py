"""Build torch.optim's optimizers by name, over named parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimizer(
    name: str, parameters: Sequence[tuple[str, nn.Parameter]], *, lr: float, **options: Any
) -> torch.optim.Optimizer:
    """Build an optimizer with every parameter in exactly one group.

    Args:
        name: Of `OPTIMIZERS`.
        parameters: Named; the names appear in the groups, so that state is saved by name.
        lr: Learning rate.
        options: The optimizer's own, in torch's words.
    """
    build: Any = OPTIMIZERS[name]
    group = {"params": [p for _, p in parameters], "names": [n for n, _ in parameters]}
    optimizer: torch.optim.Optimizer = build([group], lr=lr, **options)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
