"""A handful of primitive cuts and joins. Knows nothing of recipes."""

from __future__ import annotations

import itertools
import keyword
from typing import Any

from torch import fx, nn

from tlcompile.errors.edits import BadNameError, CycleError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import VERTEX
from tlcompile.graph.reach import descendants
from tlcompile.graph.shapes import forget_shapes

_RESERVED = frozenset(dir(nn.Module())) | {"self", "cls"}


def check_name(name: str) -> None:
    """Refuse a name that no module can have.

    Raises:
        BadNameError: A part is empty, no identifier or number, a word of Python, or taken by torch.
    """
    for part in name.split("."):
        if not (part.isidentifier() or (part.isdigit() and part.isascii())) or not part.isascii():
            raise BadNameError(name=name, reason=f"the part '{part}'")
        if keyword.iskeyword(part) or part in _RESERVED:
            raise BadNameError(
                name=name, reason=f"'{part}' is a word of Python or of torch.nn.Module"
            )


def set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path; containers on the way are made; order is kept on replacing."""
    *parents, last = path.split(".")
    for part in parents:
        child = root._modules.get(part)
        if child is None:
            child = nn.Module()
            root._modules[part] = child
        root = child
    root._modules[last] = module


def delete_unused(model_graph: ModelGraph) -> None:
    """Delete modules and parameters that no vertex uses; containers left empty go too."""
    used = {str(n.target) for n in model_graph.graph.nodes if n.op in ("call_module", "get_attr")}
    _prune(model_graph.module, "", used)


def _prune(module: nn.Module, path: str, used: set[str]) -> bool:
    """Return whether anything is left of a module."""
    if path in used:
        return True
    inner = f"{path}." if path else ""
    for name, child in list(module._modules.items()):
        if child is None or not _prune(child, f"{inner}{name}", used):
            del module._modules[name]
    for tensors in (module._parameters, module._buffers):
        for name in list(tensors):
            if f"{inner}{name}" not in used:
                del tensors[name]
    return bool(module._modules or module._parameters or module._buffers)


def insert_after(
    model_graph: ModelGraph, places: list[fx.Node], name: str, op: str, target: Any, *call: Any
) -> fx.Node:
    """Insert a vertex behind the last of `places`; `call` is its args and kwargs."""
    graph = model_graph.graph
    order = {node: index for index, node in enumerate(graph.nodes)}
    with graph.inserting_after(max(places, key=order.__getitem__)):
        node = graph.create_node(op, target, *call)
    node.meta[VERTEX] = name
    return node


def redirect(readers: list[fx.Node], old: fx.Node, new: fx.Node) -> None:
    """Let readers of one vertex read another; what they computed is forgotten."""
    for reader in readers:
        reader.replace_input_with(old, new)
    forget_shapes(descendants(readers))


def sort_vertices(model_graph: ModelGraph) -> None:
    """Put every vertex behind all that it reads; vertices already in order keep theirs.

    Raises:
        CycleError: Vertices read each other in a circle.
    """
    nodes = list(model_graph.graph.nodes)
    order: dict[fx.Node, None] = {}
    while len(order) < len(nodes):
        ready = [n for n in nodes if n not in order and all(s in order for s in n.all_input_nodes)]
        if not ready:
            raise CycleError(names=_circle([n for n in nodes if n not in order]))
        # One at a time keeps the old order wherever it is valid.
        order[ready[0]] = None
    for before, after in itertools.pairwise(order):
        before.append(after)


def _circle(nodes: list[fx.Node]) -> tuple[str, ...]:
    """Return the names along one circle among nodes that all wait for another."""
    walk = [nodes[0]]
    while walk[-1] not in walk[:-1]:
        walk.append(next(s for s in walk[-1].all_input_nodes if s in nodes))
    circle = walk[walk.index(walk[-1]) :]
    return tuple(str(node.meta.get(VERTEX, node.name)) for node in reversed(circle))
