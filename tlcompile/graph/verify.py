"""What holds for every graph after every pass."""

from __future__ import annotations

from collections.abc import Iterator

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of


def broken_invariants(model_graph: ModelGraph) -> Iterator[str]:
    """Yield what does not hold: order, unique names, targets that exist, frozen closure."""
    nodes = list(model_graph.graph.nodes)
    seen: set[object] = set()
    names: set[str] = set()
    for node in nodes:
        if any(source not in seen for source in node.all_input_nodes):
            yield f"'{node.name}' comes after all that it reads"
        seen.add(node)
        if node.op != "output":
            if name_of(node) in names:
                yield f"the name '{name_of(node)}' stands for one vertex"
            names.add(name_of(node))
        if node.op == "call_module" and not _exists(model_graph, str(node.target)):
            yield f"module '{node.target}' exists"
    if nodes[-1].op != "output":
        yield "the graph ends with its output"


def _exists(model_graph: ModelGraph, target: str) -> bool:
    try:
        model_graph.module.get_submodule(target)
    except AttributeError:
        return False
    return True
