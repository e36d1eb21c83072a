"""Plan a sweep as one computation: which boundary rows are kept, and in how many passes they come.

Pure arithmetic over needs: no model, no image, no clock. Two points whose boundaries have one key
need the same rows, whatever their heads, rates, seeds and batch sizes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tlcompile.sweep.costs import (
    Need,
    Rates,
    gained_seconds,
    live_seconds,
    naive_seconds,
    pass_seconds,
    reading_seconds,
    training_seconds,
    writing_seconds,
)

BEYOND_BUDGET = "beyond run.cache_budget"


@dataclass(frozen=True)
class Boundary:
    """The rows of one place in a base, for all points that read them.

    Attributes:
        keys: Of its sets of rows.
        vertices: Whose outputs they are.
        rows: How many.
        row_bytes: Of one row.
        points: Numbers of the points that read them, from 0.
        tier: device, memory, disk, or live: computed again in every epoch.
        gain: Seconds that keeping them saves.
        why: Why it is live; else empty.
    """

    keys: tuple[str, ...]
    vertices: tuple[str, ...]
    rows: int
    row_bytes: int
    points: tuple[int, ...]
    tier: str
    gain: float
    why: str = ""

    @property
    def num_bytes(self) -> int:
        """Return the bytes of all rows."""
        return self.rows * self.row_bytes

    @property
    def is_kept(self) -> bool:
        """Tell whether the rows are computed once and kept."""
        return self.tier != "live"


@dataclass(frozen=True)
class Pass:
    """One run of a frozen part over images, which taps every boundary on its way.

    Attributes:
        needs: What it serves; all of one base, of the same images and views.
    """

    needs: tuple[Need, ...]

    @property
    def points(self) -> tuple[int, ...]:
        """Return the numbers of the points that it serves, from 0."""
        return tuple(dict.fromkeys(need.point for need in self.needs))

    @property
    def vertices(self) -> tuple[str, ...]:
        """Return the vertices whose rows it computes."""
        return tuple(dict.fromkeys(vertex for need in self.needs for vertex in need.vertices))

    @property
    def rows(self) -> int:
        """Return how many images it reads, views counted."""
        return self.needs[0].count

    @property
    def flops(self) -> int:
        """Return the FLOPs of the deepest prefix, for one image."""
        return max(need.frozen_flops for need in self.needs)

    @property
    def precision(self) -> str:
        """Return how the frozen part computes."""
        return self.needs[0].precision

    def tapped(self) -> list[Need]:
        """Return one need for each distinct boundary."""
        return list({need.keys: need for need in self.needs}.values())

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "points": _from_one(self.points),
            "vertices": list(self.vertices),
            "rows": self.rows,
            "flops": self.flops,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class Seconds:
    """Predicted seconds of computing, alone.

    Attributes:
        naive: The points one by one, everything computed anew in every epoch.
        alone: The points one by one, the first that reads rows computing them for all.
        shared: As planned.
        dearest: The dearest point of `naive`.
    """

    naive: float
    alone: float
    shared: float
    dearest: float


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep shares.

    Attributes:
        points: How many there are.
        boundaries: Each distinct one, in order of first use.
        passes: Over images, before the first point trains.
        live: Numbers of the points that run over the images in every epoch of some phase.
        seconds: Predicted.
        budget: Bytes that stored rows may take.
        groups: Numbers of the points that train as one; empty: each for itself.
    """

    points: int
    boundaries: tuple[Boundary, ...]
    passes: tuple[Pass, ...]
    live: tuple[int, ...]
    seconds: Seconds
    budget: int
    groups: tuple[tuple[int, ...], ...] = field(default=())

    def not_kept(self) -> frozenset[str]:
        """Return the keys of the sets that no point may store."""
        return frozenset(key for one in self.boundaries if not one.is_kept for key in one.keys)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain data; points count from 1, as in the table."""
        return {
            "points": self.points,
            "groups": [_from_one(group) for group in self.groups],
            "boundaries": [
                {
                    **asdict(one), "bytes": one.num_bytes, "points": _from_one(one.points),
                    "gain": round(one.gain, 3),
                }
                for one in self.boundaries
            ],
            "passes": [one.as_json() for one in self.passes],
            "live": _from_one(self.live),
            "seconds": {name: round(value, 3) for name, value in asdict(self.seconds).items()},
            "budget": self.budget,
        }  # fmt: skip


def _from_one(points: Sequence[int]) -> list[int]:
    return [point + 1 for point in points]


def plan_sweep(
    needs: Sequence[Need],
    *,
    points: int,
    rates: Rates,
    budget: int,
    groups: tuple[tuple[int, ...], ...] = (),
) -> SweepPlan:
    """Decide for each distinct boundary, and count the passes.

    Args:
        needs: Of every phase of every point.
        points: How many points there are.
        rates: Of this machine.
        budget: Bytes that stored rows may take; the rows that save the most seconds a byte are kept.
        groups: Numbers of the points that train as one.
    """
    boundaries = _within(budget, _boundaries(needs, rates))
    kept = {one.keys for one in boundaries if one.is_kept}
    passes = _passes([need for need in needs if need.keys in kept])
    live = {need.point for need in needs if need.keys not in kept}
    seconds = _seconds(needs, kept, boundaries, passes, rates)
    return SweepPlan(points, boundaries, passes, tuple(sorted(live)), seconds, budget, groups)


def _boundaries(needs: Sequence[Need], rates: Rates) -> list[Boundary]:
    by_keys: dict[tuple[str, ...], list[Need]] = {}
    for need in needs:
        if need.keys:
            by_keys.setdefault(need.keys, []).append(need)
    return [_boundary(users, rates) for users in by_keys.values()]


def _boundary(users: Sequence[Need], rates: Rates) -> Boundary:
    """Return one boundary; its rows are those of every image list that is read."""
    first = users[0]
    rows = {need.rows: need.count for need in users}
    live = [need for need in users if need.tier == "live"]
    return Boundary(
        first.keys,
        first.vertices,
        sum(rows.values()),
        first.row_bytes,
        tuple(dict.fromkeys(need.point for need in users)),
        live[0].tier if live else first.tier,
        gained_seconds(users, rates),
        live[0].why if live else "",
    )


def _within(budget: int, boundaries: Sequence[Boundary]) -> tuple[Boundary, ...]:
    """Keep within the budget the boundaries that save the most seconds a byte."""
    wanted = [one for one in boundaries if one.is_kept]
    left, kept = budget, set()
    for one in sorted(wanted, key=lambda one: one.gain / max(one.num_bytes, 1), reverse=True):
        if one.num_bytes <= left:
            left -= one.num_bytes
            kept.add(one.keys)
    return tuple(
        one if one.keys in kept or not one.is_kept else replace(one, tier="live", why=BEYOND_BUDGET)
        for one in boundaries
    )


def _passes(needs: Sequence[Need]) -> tuple[Pass, ...]:
    """Group needs that one pass serves; rows that an earlier pass gives are not computed again."""
    by_pass: dict[tuple[str, str], list[Need]] = {}
    given: dict[tuple[tuple[str, ...], str], str] = {}
    for need in needs:
        if given.setdefault((need.keys, need.rows), need.one_pass) == need.one_pass:
            by_pass.setdefault((need.one_pass, need.rows), []).append(need)
    return tuple(Pass(tuple(some)) for some in by_pass.values())


def _seconds(
    needs: Sequence[Need],
    kept: set[tuple[str, ...]],
    boundaries: Sequence[Boundary],
    passes: Sequence[Pass],
    rates: Rates,
) -> Seconds:
    """Add up; of the rows that several points read, the first one alone pays in `alone`."""
    naive: dict[int, float] = {}
    training, once = 0.0, {}
    for need in needs:
        naive[need.point] = naive.get(need.point, 0.0) + naive_seconds(need, rates)
        if need.keys in kept:
            training += training_seconds(need, rates) + reading_seconds(need)
            cost = pass_seconds(need.count, need.frozen_flops, need.precision, rates)
            once[need.keys, need.rows] = cost
        else:
            training += live_seconds(need, rates)
    writing = sum(writing_seconds(one.num_bytes) for one in boundaries if one.is_kept)
    together = sum(pass_seconds(one.rows, one.flops, one.precision, rates) for one in passes)
    return Seconds(
        naive=sum(naive.values()),
        alone=training + writing + sum(once.values()),
        shared=training + writing + together,
        dearest=max(naive.values(), default=0.0),
    )
