"""Losses by task, and what logits say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.recipe.tasks import IGNORED

Loss = Callable[[Any, Any], Tensor]
AUXILIARY = 0.4  # weight of a segmentation model's second head, as in torchvision's references


def build_loss(
    task: str,
    *,
    name: str | None = None,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    **options: float,
) -> Loss:
    """Return the mean loss over a batch.

    Weights multiply the loss of a sample and the sum is divided by the number of samples, not by
    the sum of weights: so the mean over a batch is the mean of its halves, on any number of devices.

    Args:
        task: Of recipe.tasks.TASKS.
        name: cross_entropy or focal; of a regression mse, mae, huber or smooth_l1; default: the first.
        label_smoothing: Share of the target spread over all classes; classification only.
        weights: (C,) factor of the loss of each class; multilabel: of a label's positive samples.
        options: gamma of focal, delta of huber, beta of smooth_l1.

    Shape:
        in: logits and targets as in `Objective`   out: ()
    """
    if task == "regression":
        return partial(_NUMBERS[name or "mse"], **options)
    if name == "focal":
        return partial(_FOCAL[task], weights=weights, **options)
    if task == "binary":
        return partial(_binary, weights=weights)
    if task == "multilabel":
        return partial(_multilabel, weights=weights)
    if task == "segmentation":
        return partial(_masks, weights=weights)
    if weights is None:
        return partial(F.cross_entropy, label_smoothing=label_smoothing)
    return partial(_weighted, weights=weights, label_smoothing=label_smoothing)


def _weighted(logits: Tensor, labels: Tensor, weights: Tensor, label_smoothing: float) -> Tensor:
    each = F.cross_entropy(
        logits, labels, weights, reduction="none", label_smoothing=label_smoothing
    )
    return each.mean()


def _binary(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    targets = labels.to(logits.dtype)
    factor = None if weights is None else weights[0] + (weights[1] - weights[0]) * targets
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), targets, factor)


def _multilabel(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    targets = labels.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)


def _masks(outputs: Any, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    loss = _mask(main_logits(outputs), masks, weights)
    if isinstance(outputs, Mapping) and "aux" in outputs:
        loss = loss + AUXILIARY * _mask(outputs["aux"], masks, weights)
    return loss


def _mask(logits: Tensor, masks: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over pixels that count; 0, not nan, where none does."""
    total = F.cross_entropy(logits, masks, weights, ignore_index=IGNORED, reduction="sum")
    return total / (masks != IGNORED).sum().clamp(min=1)


def main_logits(outputs: Any) -> Tensor:
    """Return the logits that count: of torchvision's segmentation models those of `out`."""
    logits: Tensor = outputs["out"] if isinstance(outputs, Mapping) else outputs
    return logits


# Focal losses (arXiv:1708.02002), without its alpha: class weights do that.


def _focal(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    soft = labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1])
    log = logits.log_softmax(1)
    each = -soft * (1 - log.exp()) ** gamma * log
    return (each if weights is None else each * weights).sum(1).mean()


def _focal_binary(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    targets = labels.to(logits.dtype)
    factor = 1.0 if weights is None else weights[0] + (weights[1] - weights[0]) * targets
    return (_focal_sigmoid(logits.squeeze(1), targets, gamma) * factor).mean()


def _focal_multilabel(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    targets = labels.to(logits.dtype)
    factor = 1.0 if weights is None else 1 + (weights - 1) * targets
    return (_focal_sigmoid(logits, targets, gamma) * factor).mean()


def _focal_sigmoid(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    from torchvision.ops import sigmoid_focal_loss

    loss: Tensor = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=gamma)
    return loss


def _focal_masks(
    outputs: Any, masks: Tensor, weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    def one(logits: Tensor) -> Tensor:
        counted = masks != IGNORED
        pixels, labels = logits.movedim(1, -1)[counted], masks[counted]
        return _focal(pixels, labels, weights, gamma) if len(labels) else logits.sum() * 0

    loss = one(main_logits(outputs))
    if isinstance(outputs, Mapping) and "aux" in outputs:
        loss = loss + AUXILIARY * one(outputs["aux"])
    return loss


_FOCAL: dict[str, Callable[..., Tensor]] = {
    "classification": _focal,
    "binary": _focal_binary,
    "multilabel": _focal_multilabel,
    "segmentation": _focal_masks,
}
_NUMBERS: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
    "smooth_l1": F.smooth_l1_loss,
}


def predicted(task: str, logits: Tensor) -> Tensor:
    """Return the most likely class of each sample, or of each pixel; each label that is present.

    Shape:
        in: (N, C), (N, 1) or (N, C, H, W)   out: (N,) or (N, H, W) class indices; (N, C) 0 or 1
    """
    if task == "binary":
        return (logits.squeeze(1) > 0).long()
    if task == "multilabel":
        return (logits > 0).long()
    return logits.argmax(1)


def probabilities(task: str, logits: Tensor) -> Tensor:
    """Return one probability a class; a binary task has two classes.

    Shape:
        in: (N, C), (N, 1) or (N, C, H, W)   out: (N, classes) or (N, C, H, W)
    """
    if task == "binary":
        positive = torch.sigmoid(logits)
        return torch.cat([1 - positive, positive], dim=1)
    if task == "multilabel":
        return torch.sigmoid(logits)
    return logits.softmax(1)
