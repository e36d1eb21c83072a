"""A sweep's plan: which rows are kept and in how many passes they come, by arithmetic alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tlcompile.sweep.costs import Need, Rates, naive_seconds
from tlcompile.sweep.plan import BEYOND_BUDGET, plan_sweep

GIGA = 10**9
RATES = Rates({"exact": 100e9, "fast": 400e9}, decode=3e-3)
LATE = Need(
    0, 0, ("late",), ("layer4",), "resnet50", "pictures", 100, 400_000,
    train=60, judged=40, epochs=5, frozen_flops=8 * GIGA, suffix_flops=10**6, step_flops=2 * 10**6,
)  # fmt: skip
EARLY = replace(
    LATE, point=1, keys=("early",), vertices=("layer3",), row_bytes=800_000,
    frozen_flops=6 * GIGA, suffix_flops=2 * GIGA, step_flops=6 * GIGA,
)  # fmt: skip


def plan(*needs: Need, budget: int = GIGA):  # type: ignore[no-untyped-def]
    points = len({need.point for need in needs})
    return plan_sweep(needs, points=points, rates=RATES, budget=budget)


def test_one_pass_taps_every_boundary() -> None:
    found = plan(EARLY, LATE, replace(LATE, point=2, epochs=9))
    (one,) = found.passes
    assert one.vertices == ("layer3", "layer4")
    assert one.points == (1, 0, 2)
    assert one.rows == 100
    assert one.flops == LATE.frozen_flops, "the deepest prefix, once"
    assert [len(boundary.points) for boundary in found.boundaries] == [1, 2]


def test_the_formulas_by_hand() -> None:
    """100 images: decode 0.3 s; prefixes 6 and 8 s; training 5 (60 x 6 + 40 x 2) GFLOP of layer3."""
    seconds = plan(EARLY, LATE).seconds
    early = 5 * (0.3 + 6) + 5 * (60 * 6 + 40 * 2) / 100
    late = 5 * (0.3 + 8) + 5 * (60 * 2e-3 + 40 * 1e-3) / 100
    assert seconds.naive == pytest.approx(early + late)
    assert (
        seconds.dearest
        == pytest.approx(max(early, late))
        == pytest.approx(naive_seconds(EARLY, RATES))
    )
    writing, reading = 120e6 / 1e9, 5 * 100 * 1.2e6 / 3.7e9
    training = 22.0 + 5 * 0.16 / 100
    assert seconds.shared == pytest.approx(0.3 + 8 + writing + reading + training)
    assert seconds.alone == pytest.approx(0.6 + 14 + writing + reading + training)


@pytest.mark.parametrize("change", [{"one_pass": "other base"}, {"rows": "other pictures"}])
def test_other_bases_and_other_images_take_a_pass_of_their_own(change: dict[str, str]) -> None:
    assert len(plan(EARLY, replace(LATE, **change)).passes) == 2


def test_what_keeping_saves_is_less_the_pass_of_each_list_of_images() -> None:
    """Rates at which 100 images take 8.3 s; in 5 epochs both points save 5 - 1 passes."""
    other = replace(LATE, point=1, rows="more pictures", count=200, train=120, judged=80)
    (one,) = plan(LATE, other).boundaries
    moved = 300 * 400_000
    assert one.num_bytes == moved
    assert one.gain == pytest.approx(3 * (5 - 1) * 8.3 - 5 * moved / 3.7e9 - moved / 1e9)


def test_rows_of_an_equal_key_come_from_one_base_alone() -> None:
    """Two bases share blocks: the key says so, and the rows are computed once."""
    found = plan(LATE, replace(LATE, point=1, one_pass="another head on the same blocks"))
    assert len(found.passes) == len(found.boundaries) == 1
    assert found.boundaries[0].points == (0, 1)


def test_the_budget_goes_to_what_saves_most_a_byte() -> None:
    found = plan(EARLY, LATE, budget=50_000_000)
    kept = {one.vertices: one.is_kept for one in found.boundaries}
    assert kept == {("layer3",): False, ("layer4",): True}
    assert found.boundaries[0].why == BEYOND_BUDGET
    assert found.not_kept() == {"early"}
    assert found.live == (1,)
    assert plan(EARLY, LATE, budget=0).passes == ()


def test_what_is_live_is_in_no_pass() -> None:
    live = replace(EARLY, tier="live", why="reading takes longer")
    found = plan(live, LATE)
    assert [one.points for one in found.passes] == [(0,)]
    assert found.live == (1,)
    assert found.not_kept() == {"early"}


def test_a_point_without_a_boundary_costs_what_it_costs_alone() -> None:
    nothing = replace(
        EARLY, keys=(), vertices=(), frozen_flops=0, tier="live", why="nothing is frozen"
    )
    found = plan(nothing)
    assert found.boundaries == found.passes == ()
    assert found.seconds.shared == pytest.approx(found.seconds.naive)


def test_its_data_count_points_from_one() -> None:
    data = plan(EARLY, LATE).as_json()
    assert [one["points"] for one in data["boundaries"]] == [[2], [1]]
    assert data["passes"][0]["points"] == [2, 1]
    assert data["boundaries"][0]["bytes"] == 80_000_000
