from __future__ import annotations

import pytest
from graph.tiny import graph_with_shapes
from parity.plain import plain_model

from passes.golden import check_golden, tiny_after
from tlcompile.graph.names import name_of
from tlcompile.passes.pipeline import run_passes
from tlcompile.passes.set_outputs import SetOutputs

OUTPUTS = {"chain": ("pool",), "residual": ("fc", "layer1.0"), "branches": ("cat",)}


@pytest.mark.parametrize("tiny", OUTPUTS)
def test_golden(tiny: str, update_goldens: bool) -> None:
    check_golden(tiny, SetOutputs(vertices=OUTPUTS[tiny]), update_goldens)


def test_several_outputs_are_a_dict_in_this_order() -> None:
    returned = tiny_after("residual", SetOutputs(vertices=OUTPUTS["residual"])).output().args[0]
    assert isinstance(returned, dict)
    assert list(returned) == ["fc", "layer1.0"]


def test_without_names_auxiliary_heads_go() -> None:
    model_graph = graph_with_shapes(plain_model("googlenet"), 64)
    assert name_of(model_graph.output().all_input_nodes[0]) == "goog_le_net_outputs"
    run_passes(model_graph, [SetOutputs()])
    assert list(map(name_of, model_graph.output().all_input_nodes)) == ["fc"]
    assert model_graph.eval_output is None
