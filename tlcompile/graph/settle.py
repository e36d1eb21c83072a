"""An edited graph as the base of the next recipe: the same vertices under the same names, unmarked."""

from __future__ import annotations

from dataclasses import replace

from tlcompile.graph.model_graph import EDITED, FED, FRESH, ModelGraph, meta_twin


def settled(model_graph: ModelGraph) -> ModelGraph:
    """Return a graph whose edits are part of the base; its tree is a copy, on meta.

    What was new, frozen or dropped is forgotten: the next recipe alone says what is.
    """
    for node in model_graph.vertices():
        node.meta.pop(FRESH, None)
        node.meta.pop(EDITED, None)
        node.meta.pop(FED, None)
    return replace(
        model_graph,
        module=meta_twin(model_graph.module),
        builders={},
        frozen=set(),
        frozen_alone=set(),
        taps=[],
        dropped={},
        notes=[],
    )
