"""Accuracy with its interval, losses, and what logits say."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from tlcompile.training.losses import build_loss, predicted, probabilities
from tlcompile.training.metrics import RISING, Score, improves

# From the quadratic (p - k/n)^2 = z^2 p (1 - p) / n, solved below in another form than metrics.py's.
Z = 1.959963984540054


def roots(correct: int, count: int) -> tuple[float, float]:
    a = 1 + Z * Z / count
    b = -(2 * correct / count + Z * Z / count)
    c = (correct / count) ** 2
    root = math.sqrt(max(b * b - 4 * a * c, 0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.parametrize(
    ("correct", "count"), [(0, 10), (10, 10), (142, 153), (1, 1), (5, 10), (0, 1)]
)
def test_wilson_interval(correct: int, count: int) -> None:
    found = Score(0.0, correct, count).interval()
    assert found == pytest.approx(roots(correct, count), abs=1e-9)
    assert 0 <= found[0] <= correct / count <= found[1] <= 1


def test_known_values_of_the_interval() -> None:
    assert Score(0.0, 0, 10).interval() == pytest.approx((0, 0.27753), abs=1e-5)
    assert Score(0.0, 10, 10).interval() == pytest.approx((0.72247, 1), abs=1e-5)
    words = "92.8 % (n = 153, 95 % interval 87.6 to 95.9)"
    assert Score(0.0, 142, 153).worded() == words


def test_a_score_of_nothing_is_not_a_number() -> None:
    score = Score(0.0, 0, 0)
    assert math.isnan(score.accuracy)
    assert all(map(math.isnan, score.interval()))


@pytest.mark.parametrize("monitor", RISING)
def test_every_metric_knows_its_direction(monitor: str) -> None:
    rising = monitor.endswith("accuracy")
    assert improves(monitor, 0.6, 0.5) is rising
    assert improves(monitor, 0.4, 0.5) is not rising
    assert not improves(monitor, 0.5, 0.5)
    assert improves(monitor, 0.5, None)
    assert improves(monitor, 0.5, math.nan)
    assert not improves(monitor, math.nan, 0.5)
    assert not improves(monitor, math.nan, None)
    assert not improves(monitor, 0.505 if rising else 0.495, 0.5, min_delta=0.01)


def test_losses() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    plain = build_loss("classification")(logits, labels)
    assert float(plain) == pytest.approx(float(-logits.log_softmax(1)[[0, 1], labels].mean()))
    smooth = build_loss("classification", label_smoothing=0.3)(logits, labels)
    spread = float(0.7 * plain - 0.3 * logits.log_softmax(1).mean())
    assert float(smooth) == pytest.approx(spread)


def test_binary() -> None:
    logits, labels = torch.tensor([[3.0], [-1.0], [0.5]]), torch.tensor([1, 0, 0])
    value = build_loss("binary")(logits, labels)
    chance = torch.sigmoid(logits.squeeze(1))
    assert float(value) == pytest.approx(float(F.binary_cross_entropy(chance, labels.float())))
    assert predicted("binary", logits).tolist() == [1, 0, 1]
    table = probabilities("binary", logits)
    assert table.shape == (3, 2)
    assert torch.allclose(table.sum(1), torch.ones(3))
    assert table.argmax(1).tolist() == [1, 0, 1]


def test_classification_says_the_largest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    assert predicted("classification", logits).tolist() == [1]
    assert torch.allclose(probabilities("classification", logits), logits.softmax(1))
