"""Run the graph on the meta device: every shape is known without weights and without data."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from tlcompile.errors.edits import ShapeError
from tlcompile.graph.model_graph import EDITED, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.reach import ancestors

WRITES = "writes"  # node.meta key: the inputs into which the node wrote when it ran
VALUES = "values"  # node.meta key: what the node computes, at each of BATCHES

MAY_WRITE = "may write"  # node.meta key: only data can tell what the node writes into
# Two sizes tell a number that belongs to the batch from one that belongs to the model.
BATCHES = (2, 3)


class Unknown:
    """The value of a vertex that only data can tell: proposals, or a branch chosen by values."""


UNKNOWN = Unknown()


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
            if node.op == "call_module" and isinstance(node.meta[VALUES][0], Unknown):
                node.meta[MAY_WRITE] = True


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
    if isinstance(first, Unknown):
        return "depends on the data"
    if not isinstance(first, torch.Tensor):
        return type(first).__name__
    sizes = zip(first.shape, second.shape, strict=True)
    return f"({', '.join(_show_size(one, other) for one, other in sizes)})"


def _show_size(one: int, other: int) -> str:
    """Word one size at both of BATCHES: N, 2N where two batches lie below each other, or a number."""
    batches, rest = divmod(one, BATCHES[0])
    if rest or not batches or batches * BATCHES[1] != other:
        return str(one)
    return "N" if batches == 1 else f"{batches}N"


def _compute(model_graph: ModelGraph, node: fx.Node, at: int) -> Any:
    if node.op == "placeholder":
        shape = model_graph.sample_shapes[str(node.target)]
        dtype = getattr(torch, model_graph.dtypes.get(str(node.target), "float32"))
        return torch.empty((BATCHES[at], *shape), dtype=dtype, device="meta")
    if node.op == "get_attr":
        return attribute_at(model_graph.module, str(node.target))
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta[VALUES][at])
    if any(isinstance(leaf, Unknown) for leaf in pytree.tree_leaves((args, kwargs))):
        return UNKNOWN
    versions = {source: _versions(source.meta[VALUES][at]) for source in node.all_input_nodes}
    try:
        with torch.no_grad():
            value = call(model_graph.module, node, args, kwargs)
    except Exception as cause:
        if _wants_values(cause):
            return UNKNOWN
        if not isinstance(cause, _MISFITS):
            raise
        raise ShapeError(
            name=name_of(node),
            kind=kind_of(model_graph.module, node),
            found=tuple(f"{name_of(n)}: {show_shape(n)}" for n in node.all_input_nodes),
            wanted=_wanted(model_graph, node, str(cause)),
            advice=_LARGER if _is_too_small(cause) else _ANOTHER,
            key=node.meta.get(EDITED, ("base", "size") if _is_too_small(cause) else ()),
        ) from cause
    node.meta[WRITES] = [s for s, was in versions.items() if _versions(s.meta[VALUES][at]) != was]
    return value


def _wanted(model_graph: ModelGraph, node: fx.Node, told: str) -> str:
    """Word what a vertex wants; torch's words for channels that do not fit name no number."""
    module = (
        model_graph.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    )
    channels = getattr(module, "in_channels", None)
    if channels is not None and "channel" in told:
        return f"{channels} channels"
    return told.splitlines()[0] if told else "other shapes"


def _is_too_small(cause: Exception) -> bool:
    """Tell whether a map is smaller than a kernel."""
    return "is too small" in str(cause) or "greater than actual input size" in str(cause)


_LARGER = "give the model larger images with base.size, or remove what makes the map small"
_ANOTHER = "remove or replace it, or give it an input of the shape it wants"


def _versions(value: Any) -> list[int]:
    """Return how often each tensor in a value was written into."""
    return [tensor._version for tensor in tensors_in(value)]


_META = re.compile(r"\bmeta\b", re.IGNORECASE)  # the device; a user's words have metadata, too
_MISFITS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)


def _wants_values(cause: Exception) -> bool:
    """Tell whether something could not be computed because meta tensors have no values."""
    return isinstance(cause, NotImplementedError) or bool(_META.search(str(cause)))


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
