from __future__ import annotations

import pytest

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from tlcompile.graph.shapes import VALUES
from tlcompile.passes.add_layer import AddLayer
from tlcompile.passes.base import Pass
from tlcompile.passes.remove_vertex import RemoveVertex
from tlcompile.recipe.layers.any_layer import AnyLayer
from tlcompile.recipe.layers.dense import Linear
from tlcompile.recipe.layers.merge import Concat
from tlcompile.recipe.layers.norm import BatchNorm


def adding(vertex: str, layer: AnyLayer) -> AddLayer:
    return AddLayer(vertex=vertex, layer=layer, classes=5, seed=0)


NECK = Linear(
    layer="linear",
    out=6,
    norm="batch",
    activation="relu",
    dropout=0.5,
    inputs=("flatten",),
    feeds=("drop",),
)
NORM = BatchNorm(layer="batch_norm", inputs=("layer1.0",), feeds=("layer1.1",))
WIDER = Concat(layer="concat", inputs=("cat", "stem"), feeds=("classifier.0",))
PASSES = {
    "chain": adding("neck", NECK),
    "residual": adding("norm", NORM),
    "branches": adding("wider", WIDER),
}


@pytest.mark.parametrize("tiny", PASSES)
def test_golden(tiny: str, update_goldens: bool) -> None:
    check_golden(tiny, PASSES[tiny], update_goldens)


def test_a_region_feeds_all_of_its_readers() -> None:
    names = tiny_after("residual", PASSES["residual"]).names()
    for reader in ("layer1.1.conv1", "layer1.1.add"):
        assert names["norm"] in names[reader].all_input_nodes


def test_a_layer_of_a_replaced_name_reads_and_is_read_as_the_old_one() -> None:
    remove: Pass = RemoveVertex(vertex="fc", how="replace")
    fresh = adding("fc", Linear(layer="linear", out="classes"))
    model_graph = tiny_after("chain", remove, fresh)
    fc = model_graph.names()["fc"]
    assert fc.all_input_nodes == [model_graph.names()["drop"]]
    assert model_graph.output().all_input_nodes == [fc]


def test_the_promise_can_fail() -> None:
    damaged = tiny_after("chain", PASSES["chain"])
    del damaged.names()["neck.norm"].meta[VALUES]
    check_promise_can_fail(PASSES["chain"], damaged, "'neck.norm' has a shape")
