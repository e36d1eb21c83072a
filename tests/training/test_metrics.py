"""Scores: intervals, names, words, and which value is better."""

from __future__ import annotations

import json
import math

import pytest

from tlcompile.training.metrics import Score, is_better

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


@pytest.mark.parametrize("rising", [True, False])
def test_better_is_higher_or_lower(rising: bool) -> None:
    def better(value: float, best: float | None, min_delta: float = 0.0) -> bool:
        return is_better(value, best, rising=rising, min_delta=min_delta)

    assert better(0.6, 0.5) is rising
    assert better(0.4, 0.5) is not rising
    assert not better(0.5, 0.5)
    assert better(0.5, None)
    assert better(0.5, math.nan)
    assert not better(math.nan, 0.5)
    assert not better(math.nan, None)
    assert not better(0.505 if rising else 0.495, 0.5, min_delta=0.01)


PARTS = {"species": Score(0.5, 3, 4, {"f1": 0.7}), "grams": Score(0.2, None, 4, {"mae": 3.0})}
SEVERAL = Score(0.7, None, 4, {}, PARTS)


def test_a_value_is_found_by_its_name() -> None:
    assert SEVERAL.value("loss") == 0.7
    assert SEVERAL.value("species/accuracy") == 0.75
    assert SEVERAL.value("species/f1") == 0.7
    assert SEVERAL.value("grams/mae") == 3.0
    assert math.isnan(SEVERAL.value("accuracy"))
    assert math.isnan(SEVERAL.value("height/mae"))
    assert Score(0.1, None, 2, {"iou": 0.4, "accuracy": 0.9}).value("accuracy") == 0.9


def test_an_accuracy_is_never_told_without_its_interval() -> None:
    for words in (SEVERAL.headline(), SEVERAL.told(), Score(0.1, 3, 4).headline()):
        assert "75.0 % (n = 4, 95 % interval" in words
    assert "grams mae 3.0000 (n = 4)" in SEVERAL.headline()
    assert SEVERAL.brief() == "loss 0.7000 species/accuracy 0.750 grams/mae 3.000"
    assert Score(0.1, None, 4).brief() == "loss 0.1000"  # of a loss of the user's own


@pytest.mark.parametrize("score", [SEVERAL, *PARTS.values(), Score(1.0, None, 3)])
def test_a_score_survives_as_plain_data(score: Score) -> None:
    assert Score.from_data(json.loads(json.dumps(score.as_data()))) == score
