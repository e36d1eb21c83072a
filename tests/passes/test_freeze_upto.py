from __future__ import annotations

import pytest

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from tlcompile.passes.freeze_upto import FreezeUpto

POINTS = {"chain": "relu", "residual": "layer1.0", "branches": "left"}


@pytest.mark.parametrize("tiny", POINTS)
def test_golden(tiny: str, update_goldens: bool) -> None:
    check_golden(tiny, FreezeUpto(points=(POINTS[tiny],)), update_goldens)


def test_a_branch_that_the_point_does_not_read_learns() -> None:
    frozen = tiny_after("branches", FreezeUpto(points=("left",))).frozen
    assert frozen == {"x", "stem", "left"}


def test_keywords() -> None:
    assert tiny_after("chain", FreezeUpto(points=("none",))).frozen == set()
    assert "drop" not in tiny_after("chain", FreezeUpto(points=("head",))).frozen
    assert "fc" in tiny_after("chain", FreezeUpto(points=("all",))).frozen
    one = tiny_after("residual", FreezeUpto(points=(("vertex", "stem"),)))
    assert one.frozen == {"x", "stem"}
    two = tiny_after("branches", FreezeUpto(points=("left", "right")))
    assert two.frozen == {"x", "stem", "left", "right"}


def test_a_pattern_freezes_all_that_it_matches_and_says_so() -> None:
    matched = tiny_after("residual", FreezeUpto(points=(("match", "layer1.*.bn1"),)))
    named = tiny_after("residual", FreezeUpto(points=("layer1.0.bn1", "layer1.1.bn1")))
    assert matched.frozen == named.frozen
    assert "down" not in matched.frozen
    assert matched.notes == ["freeze match 'layer1.*.bn1': layer1.0.bn1, layer1.1.bn1"]


def test_the_promise_can_fail() -> None:
    one = FreezeUpto(points=("relu",))
    damaged = tiny_after("chain", one)
    damaged.frozen.remove("conv")
    check_promise_can_fail(one, damaged, "'conv', which 'bn' reads")


def test_twice_is_once() -> None:
    one = FreezeUpto(points=("relu",))
    assert tiny_after("chain", one, one).frozen == tiny_after("chain", one).frozen
