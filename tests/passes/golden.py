"""Compare a graph before and after one pass with the text in tests/goldens/<pass>/<tiny>.txt."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pytest
from graph.tiny import TINY, graph_with_shapes

from tlcompile.errors.graph import PassBrokePromiseError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.show import show
from tlcompile.graph.verify import broken_invariants
from tlcompile.passes.base import Pass
from tlcompile.passes.pipeline import run_passes

GOLDENS = Path(__file__).parent.parent / "goldens"


def tiny_after(tiny: str, *passes: Pass) -> ModelGraph:
    model_graph = graph_with_shapes(TINY[tiny]())
    run_passes(model_graph, passes)
    return model_graph


def check_golden(tiny: str, one: Pass, update: bool, before: Sequence[Pass] = ()) -> ModelGraph:
    """Apply a pass; what it promises holds, and the graphs are those of the golden."""
    model_graph = tiny_after(tiny, *before)
    text = f"{show(model_graph)}--- after {one}\n"
    one.apply(model_graph)
    assert not list(broken_invariants(model_graph))
    assert not list(one.broken_promises(model_graph))
    text += show(model_graph)
    path = GOLDENS / one.name / f"{tiny}.txt"
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    golden = path.read_text().splitlines()
    difference = "\n".join(difflib.unified_diff(golden, text.splitlines(), lineterm=""))
    assert not difference, f"{path}:\n{difference}"
    return model_graph


def check_promise_can_fail(one: Pass, damaged: ModelGraph, word: str) -> None:
    """Look at a graph that a test has damaged: the promise is seen to be broken."""
    promises = list(one.broken_promises(damaged))
    assert any(word in promise for promise in promises), promises

    class Damage(Pass):
        name = one.name

        def apply(self, model_graph: ModelGraph) -> None:
            pass

        def broken_promises(self, model_graph: ModelGraph):  # type: ignore[no-untyped-def]
            return one.broken_promises(model_graph)

    with pytest.raises(PassBrokePromiseError) as caught:
        run_passes(damaged, [Damage()])
    assert one.name in str(caught.value)
