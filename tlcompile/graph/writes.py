"""Functions and leaves that write into what they read: found by running them, then given a copy.

`in_place.py` sees what torch itself writes; what stands inside a wrapped function or a leaf shows
only when it runs. Without a copy, a write that nothing reads the result of would be left out as dead,
and one behind a freeze point would change stored features.
"""

from __future__ import annotations

import torch
from torch import fx

from tlcompile.errors.graph import NotTraceableError
from tlcompile.graph.in_place import refuse_shared_memory
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import VERTEX, name_of
from tlcompile.graph.shapes import VALUES, WRITES, record_shapes


def separate_writes(model_graph: ModelGraph) -> None:
    """Let each such vertex write into a copy; who reads its input afterwards reads its result.

    Raises:
        NotTraceableError: It does not return what it wrote into, or a view of it is read later.
    """
    for node in [n for n in model_graph.vertices() if n.meta.get(WRITES)]:
        written = _written(model_graph, node)
        order = {n: index for index, n in enumerate(model_graph.graph.nodes)}
        refuse_shared_memory(node, written, order, model_graph.module, model_graph.model)
        for reader in [r for r in written.users if order[r] > order[node]]:
            reader.replace_input_with(written, node)
        with model_graph.graph.inserting_before(node):
            copied = model_graph.graph.call_function(torch.clone, (written,))
        copied.meta[VERTEX] = f"{name_of(node)}_copy"
        node.replace_input_with(written, copied)
        record_shapes(model_graph, [copied])


def _written(model_graph: ModelGraph, node: fx.Node) -> fx.Node:
    """Return the one input that a vertex writes into and returns."""
    value = node.meta[VALUES][0]
    found = [source for source in node.meta[WRITES] if source.meta[VALUES][0] is value]
    if not found:
        names = " and ".join(f"'{name_of(source)}'" for source in node.meta[WRITES])
        raise NotTraceableError(
            model=model_graph.model,
            reason=f"'{name_of(node)}' writes into {names}, and returns something else",
            wanted="a function that changes nothing, or returns what it has changed",
            advice=f"let '{name_of(node)}' work on a copy: clone() what it writes into",
        )
    one: fx.Node = found[0]
    return one
