from __future__ import annotations

from collections.abc import Callable

import pytest
from graph.tiny import graph_with_shapes
from torch import nn

from passes.golden import check_golden, tiny_after
from passes.shared_modules import Tied, Twice
from tlcompile.errors.graph import SharedModuleError
from tlcompile.passes.check_frozen import CheckFrozen
from tlcompile.passes.drop_dead_vertices import DropDeadVertices
from tlcompile.passes.freeze_only import FreezeOnly
from tlcompile.passes.freeze_upto import FreezeUpto
from tlcompile.passes.pipeline import run_passes
from tlcompile.passes.set_outputs import SetOutputs

POINTS = {"chain": "relu", "residual": "layer1.0", "branches": "left"}


@pytest.mark.parametrize("tiny", POINTS)
def test_golden(tiny: str, update_goldens: bool) -> None:
    point = (POINTS[tiny],)
    check_golden(tiny, CheckFrozen(points=point), update_goldens, [FreezeUpto(points=point)])


def test_names_that_are_gone_are_forgotten() -> None:
    marks = FreezeUpto(points=("all",)), SetOutputs(vertices=("pool",)), DropDeadVertices()
    assert tiny_after("chain", *marks, CheckFrozen(points=("all",))).frozen == {
        "x", "conv", "bn", "relu", "pool",
    }  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [Twice, lambda: Twice(nn.Dropout()), lambda: Twice(nn.RReLU()), Tied],
)
def test_what_is_shared_by_both_sides_is_refused(build: Callable[[], nn.Module]) -> None:
    model_graph = graph_with_shapes(build())
    with pytest.raises(SharedModuleError) as caught:
        run_passes(model_graph, [FreezeUpto(points=("first",)), CheckFrozen(points=("first",))])
    assert "freeze both" in caught.value.fix()


def test_freezing_one_of_two_calls_is_refused() -> None:
    model_graph = graph_with_shapes(Twice())
    with pytest.raises(SharedModuleError):
        run_passes(model_graph, [FreezeOnly(vertex="mid"), CheckFrozen(points=())])


def test_an_activation_on_both_sides_is_fine() -> None:
    model_graph = graph_with_shapes(Twice(nn.ReLU()))
    run_passes(model_graph, [FreezeUpto(points=("first",)), CheckFrozen(points=("first",))])
