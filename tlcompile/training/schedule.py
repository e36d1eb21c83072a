"""Learning rates: a default, and a pure function of the epoch."""

from __future__ import annotations

import math
from typing import Literal

from tlcompile.model.compiled import CompiledModel

DEFAULT_LR_NEW = 1e-3  # where only new layers train
DEFAULT_LR_TUNED = 1e-4  # where pretrained weights move too


def default_rate(model: CompiledModel) -> float:
    """Return the learning rate that fits what trains."""
    only_new = all(name in model.origins for name, _ in model.trainable())
    return DEFAULT_LR_NEW if only_new else DEFAULT_LR_TUNED


def rate_factor(
    name: Literal["constant", "cosine", "step"],
    epoch: int,
    epochs: int,
    *,
    every: int = 1,
    gamma: float = 1.0,
) -> float:
    """Return the factor of the learning rate in an epoch.

    Args:
        name: constant; cosine: half a cosine from 1 towards 0; step: gamma after every `every`.
        epoch: Counts from 0.
        epochs: All of them.
        every: Epochs between two steps.
        gamma: Factor at each step.
    """
    match name:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        case "step":
            return float(gamma ** (epoch // every))
