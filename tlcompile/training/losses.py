"""Losses by task, and what logits say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, torch's own name for it

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(task: str, *, label_smoothing: float = 0.0) -> Loss:
    """Return the mean loss over a batch.

    Args:
        task: classification: softmax cross-entropy. binary: sigmoid cross-entropy of one logit.
        label_smoothing: Share of the target spread over all classes; classification only.

    Shape:
        in: logits (N, C) or (N, 1), labels (N,)   out: ()
    """
    if task == "binary":
        return _binary
    return partial(F.cross_entropy, label_smoothing=label_smoothing)


def _binary(logits: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype))


def predicted(task: str, logits: Tensor) -> Tensor:
    """Return the most likely class of each sample.

    Shape:
        in: (N, C) or (N, 1)   out: (N,) class indices
    """
    if task == "binary":
        return (logits.squeeze(1) > 0).long()
    return logits.argmax(1)


def probabilities(task: str, logits: Tensor) -> Tensor:
    """Return one probability a class; a binary task has two classes.

    Shape:
        in: (N, C) or (N, 1)   out: (N, classes)
    """
    if task == "binary":
        positive = torch.sigmoid(logits)
        return torch.cat([1 - positive, positive], dim=1)
    return logits.softmax(1)
