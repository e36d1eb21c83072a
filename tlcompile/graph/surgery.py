"""A handful of primitive cuts and joins. Knows nothing of recipes."""

from __future__ import annotations

import heapq
import itertools
import keyword
from typing import Any

import torch
from torch import fx, nn

from tlcompile.errors.edits import BadNameError, CycleError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import VERTEX
from tlcompile.graph.reach import descendants
from tlcompile.graph.shapes import attribute_at, forget_shapes

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


def check_place(root: nn.Module, name: str) -> None:
    """Refuse a dotted name where something else of the module tree has it.

    Raises:
        BadNameError: A module on the way has an attribute or a tensor of this name.
    """
    owner: nn.Module | None = root
    for part in name.split("."):
        if owner is None:
            return
        if part in {*vars(owner), *dir(type(owner)), *owner._parameters, *owner._buffers}:
            kind = type(owner).__name__
            raise BadNameError(name=name, reason=f"'{part}' is an attribute of the {kind}")
        owner = owner._modules.get(part)


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


def set_parameter(root: nn.Module, path: str, tensor: torch.Tensor) -> None:
    """Put a parameter or buffer in the place of the one at a dotted path; a parameter stays one."""
    owner_path, _, name = path.rpartition(".")
    owner = root.get_submodule(owner_path)
    if name in owner._parameters:
        owner._parameters[name] = nn.Parameter(tensor)
    else:
        owner._buffers[name] = tensor


def delete_unused(model_graph: ModelGraph) -> None:
    """Delete modules and parameters that no vertex uses; containers left empty go too."""
    root = model_graph.module
    used = [n for n in model_graph.graph.nodes if n.op in ("call_module", "get_attr")]
    _prune(root, {id(attribute_at(root, str(node.target))) for node in used})


def _prune(module: nn.Module, used: set[int]) -> bool:
    """Return whether anything is left of a module; by identity, as one object may have two names."""
    if id(module) in used:
        return True
    for name, child in list(module._modules.items()):
        if child is None or not _prune(child, used):
            del module._modules[name]
    for tensors in (module._parameters, module._buffers):
        for name, tensor in list(tensors.items()):
            if id(tensor) not in used:
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
    place = {node: index for index, node in enumerate(nodes)}
    unread = {node: len(node.all_input_nodes) for node in nodes}
    ready = [place[node] for node in nodes if not unread[node]]
    order: list[fx.Node] = []
    while ready:
        # The first that is ready keeps the old order wherever it is valid.
        order.append(nodes[heapq.heappop(ready)])
        for reader in order[-1].users:
            unread[reader] -= 1
            if not unread[reader]:
                heapq.heappush(ready, place[reader])
    if len(order) < len(nodes):
        raise CycleError(names=_circle([node for node in nodes if unread[node]]))
    for before, after in itertools.pairwise(order):
        before.append(after)


def _circle(nodes: list[fx.Node]) -> tuple[str, ...]:
    """Return the names along one circle among nodes that all wait for another."""
    walk = [nodes[0]]
    while walk[-1] not in walk[:-1]:
        walk.append(next(s for s in walk[-1].all_input_nodes if s in nodes))
    circle = walk[walk.index(walk[-1]) :]
    return tuple(str(node.meta.get(VERTEX, node.name)) for node in reversed(circle))
