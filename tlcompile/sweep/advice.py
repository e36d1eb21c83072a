"""Rank freeze points by what their features tell, and say how far the ranking can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from tlcompile.sweep.transferability import Probe, kendall_tau

FEW = 20  # images a class, below which little can be believed
ALIKE = 0.6  # Kendall's tau from which on two scores are said to agree


@dataclass(frozen=True)
class Scored:
    """One freeze point with its scores; the higher, the better.

    Attributes:
        point: As `freeze.upto` takes it.
        also: Other names of the same point.
        num_bytes: Of a row of features, as a run keeps it.
        trainable: Parameters that learn behind it.
        width: Numbers of the vector that is scored.
        log_me: Log evidence per image.
        h_score: As its paper has it; None: the targets are numbers.
        h_score_shrunk: With a regularised covariance.
        probe: A linear model on images that it was not fitted on.
    """

    point: str
    also: tuple[str, ...]
    num_bytes: int
    trainable: int
    width: int
    log_me: float
    h_score: float | None
    h_score_shrunk: float | None
    probe: Probe

    def measures(self) -> dict[str, float]:
        """Return the scores that the ranking is made of, by name."""
        shrunk = {} if self.h_score_shrunk is None else {"H-score": self.h_score_shrunk}
        return {"LogME": self.log_me, **shrunk, "probe": self.probe.value}


@dataclass(frozen=True)
class Ranked:
    """A freeze point with its place.

    Attributes:
        scored: The point.
        mean_rank: Mean of its ranks by each score; 1: the best by all.
        rank: By the mean rank; of equal ones by the probe, then by what trains less.
    """

    scored: Scored
    mean_rank: float
    rank: int


@dataclass(frozen=True)
class Confidence:
    """How far a ranking can be believed.

    Attributes:
        level: high, medium or low.
        reasons: Sentences.
        agreement: Kendall's tau of each pair of scores, by their names.
    """

    level: str
    reasons: tuple[str, ...]
    agreement: Mapping[str, float]


def ranked(points: Sequence[Scored]) -> list[Ranked]:
    """Return the points, the best first."""
    places = [_ranks([p.measures()[name] for p in points]) for name in points[0].measures()]
    means = [sum(ranks) / len(ranks) for ranks in zip(*places, strict=True)]
    order = sorted(
        range(len(points)),
        key=lambda i: (means[i], -points[i].probe.value, points[i].trainable),
    )
    return [Ranked(points[i], means[i], place) for place, i in enumerate(order, 1)]


def _ranks(values: Sequence[float]) -> list[float]:
    """Return 1 for the highest; equal ones share the mean of their places."""
    return [
        1 + sum(other > value for other in values) + (values.count(value) - 1) / 2
        for value in values
    ]


def confidence(order: Sequence[Ranked], classes: int | None) -> Confidence:
    """Say how far a ranking can be believed.

    Args:
        order: The best first.
        classes: How many; None: the targets are numbers.
    """
    points = [one.scored for one in order]
    agreement = _agreement(points)
    apart, first = _first_two(points)
    agree, second = _worded_agreement(agreement)
    images = points[0].probe.count
    few = images < FEW * (classes or 1)
    reasons = [reason for reason in (first, second) if reason]
    if few:
        each = f", {images / classes:.0f} a class" if classes else ""
        reasons.append(f"few images: {images:,}{each}")
    doubts = (not apart) + (not agree) + few
    level = "high" if not doubts else "medium" if doubts == 1 else "low"
    return Confidence(level, tuple(reasons), agreement)


def _agreement(points: Sequence[Scored]) -> dict[str, float]:
    columns = {name: [p.measures()[name] for p in points] for name in points[0].measures()}
    return {
        f"{one} and {other}": kendall_tau(columns[one], columns[other])
        for one, other in combinations(columns, 2)
    }


def _first_two(points: Sequence[Scored]) -> tuple[bool, str]:
    """Tell whether the probe tells the first point from the second, and word it."""
    if len(points) < 2:
        return False, "there is but one point"
    best, next_ = points[0], points[1]
    (low, _), (_, high) = best.probe.interval, next_.probe.interval
    n = f"{best.probe.count:,} images"
    if low > high:
        return True, f"{n} tell {best.point} from {next_.point}: their probes' intervals are apart"
    return (
        False,
        f"{n} do not tell {best.point} from {next_.point}: their probes' intervals overlap",
    )


def _worded_agreement(agreement: Mapping[str, float]) -> tuple[bool, str]:
    if not agreement:
        return False, ""
    pair, least = min(agreement.items(), key=lambda item: (not math.isnan(item[1]), item[1]))
    if math.isnan(least):
        return False, f"{pair} cannot be compared: one is the same at every point"
    agree = least >= ALIKE
    word = "agree: Kendall's tau is at least" if agree else "do not agree: Kendall's tau is only"
    return agree, f"the scores {word} {least:.2f} ({pair})"


def scored_data(one: Ranked) -> dict[str, Any]:
    """Return a point as plain data; docs/json.md has the keys."""
    data = asdict(one.scored)
    data["freeze"], data["bytes"] = data.pop("point"), data.pop("num_bytes")
    found = data.pop("probe")
    data["probe"] = {
        "metric": found["metric"],
        "value": found["value"],
        "n": found["count"],
        "interval95": list(found["interval"]),
    }
    return {**data, "also": list(one.scored.also), "mean_rank": one.mean_rank, "rank": one.rank}
