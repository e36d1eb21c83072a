"""The first loss against chance: what chance is, by task, and when it is worth a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.training.first_loss import chance_loss, warn_of_first_loss


class Of:
    """An objective of one loss."""

    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        self.loss = loss


CLASSES = 7


def both(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    named = F.cross_entropy(outputs["named"], targets["named"])
    return named + 0.5 * F.mse_loss(outputs["measured"], targets["measured"])


LABELS, MANY = torch.arange(12) % CLASSES, torch.ones(12, 4)
TASKS: dict[str, tuple[Any, Any, Any, float]] = {
    "classification": (F.cross_entropy, torch.randn(12, CLASSES), LABELS, math.log(CLASSES)),
    "binary": (F.binary_cross_entropy_with_logits, torch.randn(12, 1), MANY[:, :1], math.log(2)),
    "multilabel": (F.binary_cross_entropy_with_logits, torch.randn(12, 4), MANY, math.log(2)),
    "regression": (F.mse_loss, torch.randn(12, 4), 3 * MANY, 9.0),
    "segmentation": (
        F.cross_entropy, torch.randn(2, CLASSES, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64),
        math.log(CLASSES),
    ),
    "several": (
        both, {"named": torch.randn(12, CLASSES), "measured": torch.randn(12, 4)},
        {"named": LABELS, "measured": 2 * MANY}, math.log(CLASSES) + 2.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_chance_is_that_of_outputs_that_say_nothing(task: str) -> None:
    loss, outputs, targets, wanted = TASKS[task]
    assert chance_loss(Of(loss), outputs, targets) == pytest.approx(wanted, rel=1e-6)


def test_label_smoothing_does_not_move_chance() -> None:
    smoothed = Of(lambda o, t: F.cross_entropy(o, t, label_smoothing=0.3))
    chance = chance_loss(smoothed, torch.randn(12, CLASSES), LABELS)
    assert chance == pytest.approx(math.log(CLASSES), rel=1e-6)


def first_loss(width: int, classes: int, scale: float, seed: int) -> float:
    """Loss of a fresh head on features as a pretrained network has them, times a scale."""
    torch.manual_seed(seed)
    features = torch.randn(32, width).relu()
    with torch.no_grad():
        logits = scale * nn.Linear(width, classes)(features)
        return float(F.cross_entropy(logits, torch.randint(classes, (32,))))


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_a_fresh_head_is_never_warned_of(classes: int) -> None:
    for seed in range(50):
        loss = first_loss(512, classes, 1.0, seed)
        assert not warn_of_first_loss(loss, math.log(classes), counts=True)


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_a_head_that_is_far_too_large_is_always_warned_of(classes: int) -> None:
    for seed in range(50):
        loss = first_loss(512, classes, 40.0, seed)
        told = warn_of_first_loss(loss, math.log(classes), counts=True)
        assert "init" in told


def test_a_head_that_knows_the_labels_is_warned_of() -> None:
    assert "cannot know" in warn_of_first_loss(0.3, math.log(2), counts=True)
    assert not warn_of_first_loss(0.5, math.log(2), counts=True)


def test_numbers_that_are_far_too_large_are_warned_of() -> None:
    """Targets are standardised already, so the outputs are what is too large."""
    told = warn_of_first_loss(0.2, 0.001, counts=False)
    assert "fine_tune.init={name: normal, std: 1e-4}" in told
    assert "standardise" not in told
    assert not warn_of_first_loss(3.0, 1.0, counts=False)
    assert not warn_of_first_loss(0.1, 1.0, counts=False)  # a lucky bias


def test_without_a_number_nothing_is_said() -> None:
    assert not warn_of_first_loss(float("nan"), 1.0, counts=True)
    assert not warn_of_first_loss(1.0, 0.0, counts=False)
