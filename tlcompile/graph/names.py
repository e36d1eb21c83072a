"""Name every vertex, and find exactly one vertex by its name, or refuse.

A vertex' name is the qualified name that torchvision.models.feature_extraction gives:
`layer4.1.conv2`, `layer4.1.add`, `flatten`, `fc`. A name that is a prefix (`layer4`) is a region.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import fx, nn

from tlcompile.errors.graph import InsideLeafError, NoMatchError, UnknownVertexError
from tlcompile.graph.trace import CALLER

VERTEX = "vertex"  # node.meta key: the vertex' name


def assign_names(graph: fx.Graph) -> None:
    """Write each node's vertex name into its meta; a repeated name gets _1, _2, ..."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        base = _base_name(node)
        seen = counts.get(base, 0)
        counts[base] = seen + 1
        node.meta[VERTEX] = f"{base}_{seen}" if seen else base


def _base_name(node: fx.Node) -> str:
    if node.op in ("call_module", "get_attr", "placeholder"):
        return str(node.target)
    caller = node.meta[CALLER]
    operation = re.sub(r"_\d+$", "", node.name)  # torch.fx numbers the whole graph, we each caller
    return f"{caller}.{operation}" if caller else operation


def name_of(node: fx.Node) -> str:
    """Return a vertex' name."""
    return str(node.meta[VERTEX])


def find_region(graph: fx.Graph, module: nn.Module, model: str, name: str) -> list[fx.Node]:
    """Return the vertices that a name stands for, in the order of computation.

    A vertex of exactly that name is the region alone; else every vertex under `name.` is.

    Raises:
        InsideLeafError: The name points inside a module that is one vertex.
        UnknownVertexError: It names nothing.
    """
    nodes = [node for node in graph.nodes if node.op != "output"]
    exact = [node for node in nodes if name_of(node) == name]
    region = exact or [node for node in nodes if name_of(node).startswith(f"{name}.")]
    if region:
        return region
    for node in nodes:
        if node.op == "call_module" and name.startswith(f"{node.target}."):
            leaf = module.get_submodule(str(node.target))
            inner = name[len(str(node.target)) + 1 :]
            if inner in dict(leaf.named_modules()) or inner in dict(leaf.named_parameters()):
                raise InsideLeafError(
                    model=model, name=name, leaf=name_of(node), kind=type(leaf).__name__
                )
    raise UnknownVertexError(model=model, name=name, vertices=tuple(all_names(nodes)))


def find_vertex(graph: fx.Graph, module: nn.Module, model: str, name: str) -> fx.Node:
    """Return the one vertex that a name means as a value: a region means its last vertex."""
    return find_region(graph, module, model, name)[-1]


def find_matching(graph: fx.Graph, model: str, pattern: str) -> list[fx.Node]:
    """Return the vertices whose name a pattern matches; `*` stands for any text, dots too.

    Raises:
        NoMatchError: None does.
    """
    nodes = [node for node in graph.nodes if node.op != "output"]
    found = [node for node in nodes if fnmatchcase(name_of(node), pattern)]
    if not found:
        raise NoMatchError(model=model, pattern=pattern, vertices=tuple(all_names(nodes)))
    return found


def all_names(nodes: Iterable[fx.Node]) -> list[str]:
    """Return every name that can be written: regions from the outside in, then vertices."""
    vertices = [name_of(node) for node in nodes]
    regions: dict[str, None] = {}
    for vertex in vertices:
        parts = vertex.split(".")
        for depth in range(1, len(parts)):
            regions[".".join(parts[:depth])] = None
    outer = sorted(regions, key=lambda region: region.count("."))
    return list(dict.fromkeys([*outer, *vertices]))
