"""Run the graph on the meta device: every shape is known without weights and without data."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from tlcompile.errors.edits import ShapeError
from tlcompile.graph.model_graph import EDITED, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.reach import ancestors

VALUES = "values"  # node.meta key: what the node computes, at each of BATCHES

# Two sizes tell a number that belongs to the batch from one that belongs to the model.
BATCHES = (2, 3)


def record_shapes(model_graph: ModelGraph, wanted: Collection[fx.Node] | None = None) -> None:
    """Compute every vertex that has no value yet, on meta, at both batch sizes, in eval mode.

    Args:
        model_graph: The graph.
        wanted: Only these, with all that they read; while edits are under way, the rest may not fit.

    Raises:
        ShapeError: A vertex cannot take the shapes that reach it.
    """
    model_graph.module.eval()
    needed = None if wanted is None else ancestors(wanted)
    for node in model_graph.graph.nodes:
        if VALUES in node.meta or node.op == "output":
            continue
        if needed is None or node in needed:
            node.meta[VALUES] = tuple(_compute(model_graph, node, at) for at in range(len(BATCHES)))


def forget_shapes(nodes: set[fx.Node]) -> None:
    """Forget what these vertices compute, because something before them changed."""
    for node in nodes:
        node.meta.pop(VALUES, None)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape of one sample, without the batch; None where the value is no tensor."""
    value = node.meta[VALUES][0]
    return tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else None


def show_shape(node: fx.Node) -> str:
    """Word what a vertex computes: '(N, 512, 7, 7)'."""
    first, second = node.meta[VALUES]
    if not isinstance(first, torch.Tensor):
        return type(first).__name__
    sizes = zip(first.shape, second.shape, strict=True)
    return f"({', '.join('N' if a != b and a == 2 else str(a) for a, b in sizes)})"


def _compute(model_graph: ModelGraph, node: fx.Node, at: int) -> Any:
    if node.op == "placeholder":
        shape = model_graph.sample_shapes[str(node.target)]
        dtype = getattr(torch, model_graph.dtypes.get(str(node.target), "float32"))
        return torch.empty((BATCHES[at], *shape), dtype=dtype, device="meta")
    if node.op == "get_attr":
        return attribute_at(model_graph.module, str(node.target))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta[VALUES][at])
    try:
        with torch.no_grad():
            return call(model_graph.module, node, args, kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as cause:
        raise ShapeError(
            name=name_of(node),
            kind=kind_of(model_graph.module, node),
            found=tuple(f"{name_of(n)}: {show_shape(n)}" for n in node.all_input_nodes),
            wanted=str(cause).splitlines()[0] if str(cause) else "other shapes",
            advice="remove or replace it, or give it an input of the shape it wants",
            key=node.meta.get(EDITED, ()),
        ) from cause


def call(module: nn.Module, node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Run one node on the given arguments."""
    match node.op:
        case "call_module":
            return module.get_submodule(str(node.target))(*args, **kwargs)
        case "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        case _:
            assert callable(node.target)
            return node.target(*args, **kwargs)


def kind_of(module: nn.Module, node: fx.Node) -> str:
    """Name what a vertex is: its module's class, or its operation."""
    match node.op:
        case "call_module":
            return type(module.get_submodule(str(node.target))).__name__
        case "placeholder":
            return "input"
        case "get_attr":
            return "parameter"
        case "call_method":
            return str(node.target)
        case _:
            return getattr(node.target, "__name__", str(node.target))


def attribute_at(module: nn.Module, path: str) -> Any:
    """Return a module, parameter or buffer by its dotted name."""
    *parents, last = path.split(".")
    return getattr(module.get_submodule(".".join(parents)), last)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors inside a value, however nested."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
