"""Who reads whom: ancestors and descendants of vertices."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx


def ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and all that they read, on every path.

    Ancestors, not earlier nodes: in a residual block the skip path comes later in the list.
    """
    return _closure(nodes, lambda node: node.all_input_nodes)


def descendants(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Return the nodes and all that read them."""
    return _closure(nodes, lambda node: list(node.users))


def _closure(nodes: Iterable[fx.Node], step: object) -> set[fx.Node]:
    assert callable(step)
    seen: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += step(node)
    return seen


def last_parametric(output: fx.Node, owns: set[fx.Node]) -> fx.Node | None:
    """Return the last vertex with parameters on the way to the output, in order of computation."""
    reached = ancestors([output])
    found = [node for node in output.graph.nodes if node in reached and node in owns]
    return found[-1] if found else None
