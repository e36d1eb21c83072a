"""Run passes in order, verify after each, and say which had run when one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.graph import PassBrokePromiseError
from tlcompile.graph.model_graph import EDITED, ModelGraph
from tlcompile.graph.shapes import VALUES
from tlcompile.graph.verify import broken_invariants
from tlcompile.passes.base import Pass


def run_passes(
    model_graph: ModelGraph,
    passes: Sequence[Pass],
    after: Callable[[Pass, ModelGraph], None] = lambda _pass, _graph: None,
) -> None:
    """Apply passes in order; `after` is called behind each one, for printing or timing.

    Raises:
        GraphError: The recipe does not fit the model; it carries the pass' line of the recipe.
        PassBrokePromiseError: A pass left the graph in a bad state.
    """
    ran: list[str] = []
    for one in passes:
        try:
            one.apply(model_graph)
        except TLCompileError as error:
            if not error.key:
                error.key = one.key
            raise
        ran.append(str(one))
        for node in model_graph.vertices():
            if VALUES not in node.meta:
                node.meta.setdefault(EDITED, one.key)
        for promise in (*broken_invariants(model_graph), *one.broken_promises(model_graph)):
            raise PassBrokePromiseError(name=one.name, promise=promise, ran=ran)
        after(one, model_graph)
