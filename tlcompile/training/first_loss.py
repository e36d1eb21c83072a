"""Compare the loss of the very first step with chance: a fresh head knows nothing yet."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# Of cross-entropies. A fresh head's logits are independent of the labels; if their standard
# deviation is s, the loss is at most about ln C + s^2 / 2 (Jensen, log-sum-exp) and at least ln C.
# Twice chance means s > 1.2 for 2 classes and s > 3.7 for 1000: sure before it has seen a label.
FACTOR = 2.0
# Of squared and absolute errors: outputs and targets, which are standardised, may differ in scale by
# a few times and train well; ten times the error of saying zero means that the outputs are too large.
FACTOR_OF_ERRORS = 10.0
# Whatever the size of the features, a head of these weights says next to nothing.
SMALLER = "fine_tune.init={name: normal, std: 1e-4}"


class TakesLoss(Protocol):
    """What chance_loss needs of an objective."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the mean loss over a batch."""
        ...


@torch.no_grad()
def chance_loss(objective: TakesLoss, outputs: Any, targets: Any) -> float:
    """Return the loss of outputs that say nothing: all zero, on the same targets.

    That is ln C for classification and segmentation, ln 2 for binary and multilabel, the mean square
    of the targets for regression, and the weighted sum of those where there are several outputs.

    Args:
        objective: Whose loss it is.
        outputs: Of a batch; only their shapes matter.
        targets: What they are compared with.
    """
    silent = pytree.tree_map_only(Tensor, torch.zeros_like, outputs)
    return float(objective.loss(silent, targets))


def warn_of_first_loss(first: float, chance: float, *, counts: bool) -> str:
    """Return a warning where the first loss of a fresh head is far from chance; else ''.

    Args:
        first: Mean loss of the first step's batch, before any step was taken.
        chance: From `chance_loss`, of the same batch.
        counts: Whether the loss is a cross-entropy, which also cannot be far below chance.
    """
    factor = FACTOR if counts else FACTOR_OF_ERRORS
    if not (math.isfinite(first) and chance > 0):
        return ""
    told = f"the first loss is {first:.3g}, chance is {chance:.3g}"
    if first > factor * chance:
        times = f"{told}: {first / chance:.3g} times as much before any step"
        return f"{times}; let the new layers begin smaller: {SMALLER}"
    if counts and first < chance / factor:
        return f"{told}: a fresh head cannot know this; do the images show their labels?"
    return ""
