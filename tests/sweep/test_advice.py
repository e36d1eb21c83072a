"""How freeze points are ranked, and how far a ranking is said to be believed."""

from __future__ import annotations

import pytest

from tlcompile.sweep.advice import Scored, confidence, ranked
from tlcompile.sweep.transferability import Probe


def scored(
    point: str, log_me: float, h: float | None, right: float, half: float = 0.02, count: int = 1000
) -> Scored:
    found = Probe("accuracy", right, count, (right - half, right + half))
    return Scored(point, (), 4, 10, 1, log_me, h, h, found)


def test_the_mean_of_the_ranks_decides() -> None:
    a, b, c = scored("a", 3, 1, 0.9), scored("b", 2, 3, 0.8), scored("c", 1, 2, 0.7)
    order = ranked([a, b, c])
    assert [(one.scored.point, one.rank) for one in order] == [("a", 1), ("b", 2), ("c", 3)]
    assert [one.mean_rank for one in order] == pytest.approx([5 / 3, 5 / 3, 8 / 3])


def test_points_that_are_alike_share_the_mean_of_their_places() -> None:
    order = ranked(
        [scored("a", 1, None, 0.9), scored("b", 1, None, 0.9), scored("c", 0, None, 0.5)]
    )
    assert [one.mean_rank for one in order] == [1.5, 1.5, 3]


def test_of_equal_points_the_one_that_trains_less_comes_first() -> None:
    early = scored("early", 1, 1, 0.9)
    late = Scored("late", (), 4, 5, 1, 1, 1, 1, early.probe)
    assert [one.scored.point for one in ranked([early, late])] == ["late", "early"]


CLEAR = [scored("a", 3, 3, 0.9), scored("b", 2, 2, 0.8), scored("c", 1, 1, 0.7)]
NEAR = [scored("a", 3, 3, 0.9), scored("b", 2, 2, 0.89), scored("c", 1, 1, 0.7)]
ODD = [scored("a", 3, 1, 0.9), scored("b", 2, 2, 0.8), scored("c", 1, 3, 0.7)]


@pytest.mark.parametrize(
    ("points", "classes", "level", "reason"),
    [
        (CLEAR, 2, "high", "intervals are apart"),
        (NEAR, 2, "medium", "do not tell a from b: their probes' intervals overlap"),
        (ODD, 2, "medium", "the scores do not agree"),
        (CLEAR, 100, "medium", "few images: 1,000, 10 a class"),
        (NEAR, 100, "low", "few images"),
        (CLEAR[:1], 2, "low", "there is but one point"),
    ],
)
def test_confidence_has_its_reasons(
    points: list[Scored], classes: int, level: str, reason: str
) -> None:
    found = confidence(ranked(points), classes)
    assert found.level == level
    assert reason in "; ".join(found.reasons)


def test_agreement_is_kendall_s_tau_of_each_pair() -> None:
    found = confidence(ranked(ODD), 2)
    assert found.agreement == {
        "LogME and H-score": -1,
        "LogME and probe": 1,
        "H-score and probe": -1,
    }
