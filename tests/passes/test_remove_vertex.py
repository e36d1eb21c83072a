from __future__ import annotations

import pytest

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from tlcompile.graph.surgery import redirect
from tlcompile.passes.remove_vertex import RemoveVertex

PASSES = {
    "chain": RemoveVertex(vertex="bn", how="bypass"),
    "residual": RemoveVertex(vertex="layer1.1", how="bypass"),
    "branches": RemoveVertex(vertex="left", how="drop"),
}


@pytest.mark.parametrize("tiny", PASSES)
def test_golden(tiny: str, update_goldens: bool) -> None:
    check_golden(tiny, PASSES[tiny], update_goldens)


def test_a_dropped_vertex_leaves_its_concatenation() -> None:
    names = tiny_after("branches", PASSES["branches"]).names()
    assert names["cat"].all_input_nodes == [names["right"]]


def test_the_promise_can_fail() -> None:
    damaged = tiny_after("chain", PASSES["chain"])
    names = damaged.names()
    redirect([names["relu"]], names["conv"], names["bn"])
    check_promise_can_fail(PASSES["chain"], damaged, "bypassed 'bn'")
