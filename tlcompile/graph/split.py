"""Cut the graph at the freeze point: a frozen prefix, a trainable suffix, a boundary between them.

Prefix and suffix are programs over one module tree. Only tensors with the batch first cross; numbers
that belong to the batch are computed again from a boundary tensor, constants are written in.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tlcompile.errors.graph import NotSplittableError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import VERTEX, name_of
from tlcompile.graph.program import Program, program_of
from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import BATCHES, MAY_WRITE, VALUES, Unknown, show_shape

_LITERALS = (int, float, bool, str, type(None))


@dataclass(frozen=True)
class Boundary:
    """One tensor that crosses.

    Attributes:
        vertex: The frozen vertex that computes it.
        shape: Of one sample, without the batch.
        num_bytes: Of one sample, in its own dtype.
    """

    vertex: str
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True)
class Split:
    """Two programs and what crosses between them.

    Attributes:
        prefix: Inputs to a tuple of boundary tensors. Deterministic; nothing in it learns.
        suffix: Boundary tensors to what the model returns in eval mode.
        boundary: What crosses, in order.
        suffix_train: The same for train mode, where that returns more.
    """

    prefix: Program
    suffix: Program
    boundary: tuple[Boundary, ...]
    suffix_train: Program | None = None


def split_frozen(model_graph: ModelGraph) -> Split | None:
    """Cut behind the frozen vertices; None where nothing that computes is frozen.

    Raises:
        NotSplittableError: A value crosses that depends on the input and has no batch dimension.
    """
    graph = model_graph.graph
    frozen = [n for n in model_graph.vertices() if name_of(n) in model_graph.frozen]
    if not any(n.op not in ("placeholder", "get_attr") for n in frozen):
        return None
    inputs = {n for n in graph.nodes if n.op == "placeholder"}  # raw data crosses as it is
    inside = _with_plumbing(graph, set(frozen) | inputs)
    dependent = _dependent(graph)
    crossing = [
        n for n in graph.nodes if n in inside and any(reader not in inside for reader in n.users)
    ]
    tensors = [n for n in crossing if n in dependent and _is_batched(n)]
    for node in crossing:
        if isinstance(node.meta[VALUES][0], Unknown):
            why = "nothing can hold it for another time"
            raise NotSplittableError(name=name_of(node), value=show_shape(node), reason=why)
    if not tensors:
        return None
    suffix, known = _suffix_graph(graph, inside, dependent, crossing, tensors)
    boundary = tuple(_boundary(node) for node in tensors)
    prefix = program_of(graph, "prefix", output=tuple(tensors))
    if model_graph.eval_output is None:
        return Split(prefix, program_of(suffix, "suffix"), boundary)
    evaluated = program_of(suffix, "suffix", output=known[model_graph.eval_output])
    return Split(prefix, evaluated, boundary, program_of(suffix, "suffix_train"))


def _with_plumbing(graph: fx.Graph, inside: set[fx.Node]) -> set[fx.Node]:
    """Add sizes, assertions and items of tuples that depend on the frozen part alone.

    A module is never plumbing, whatever it returns: an attention that returns a tuple learns.
    """
    for node in graph.nodes:
        if node in inside or node.op in ("output", "placeholder", "call_module"):
            continue
        if not node.all_input_nodes:
            continue
        if all(source in inside for source in node.all_input_nodes) and _is_plumbing(node):
            inside.add(node)
    return inside


def _is_plumbing(node: fx.Node) -> bool:
    if not isinstance(node.meta[VALUES][0], Tensor):
        return True
    is_item = getattr(node.target, "__name__", "") == "getitem"
    return is_item and not isinstance(node.all_input_nodes[0].meta[VALUES][0], Tensor)


def _dependent(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that depend on the model's input."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _is_batched(node: fx.Node) -> bool:
    values = node.meta[VALUES]
    return all(
        isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == batch
        for value, batch in zip(values, BATCHES, strict=True)
    )


def _boundary(node: fx.Node) -> Boundary:
    value = node.meta[VALUES][0]
    shape = tuple(value.shape[1:])
    return Boundary(name_of(node), shape, value[0].numel() * value.element_size())


def _suffix_graph(
    graph: fx.Graph,
    inside: set[fx.Node],
    dependent: set[fx.Node],
    crossing: list[fx.Node],
    tensors: list[fx.Node],
) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    """Copy what is outside; what crosses becomes an input, a constant, or a size of an input."""
    suffix = fx.Graph()
    known: dict[fx.Node, Any] = {}
    for index, node in enumerate(tensors):
        known[node] = suffix.placeholder(f"boundary{index}")
        known[node].meta[VERTEX] = name_of(node)
    first = known[tensors[0]]
    if any(MAY_WRITE in node.meta for node in graph.nodes if node not in inside):
        for node in tensors:  # a feature that is kept is read again in the next epoch
            known[node] = suffix.call_method("clone", (known[node],))
    for node in crossing:
        if node not in known and node in dependent:
            known[node] = _rebuilt(suffix, node, first)
    # Parameters and what is computed from them alone are there on both sides.
    constant = {n for n in crossing if n not in dependent}
    repeated = ancestors(constant)
    for node in graph.nodes:
        if node in known or node.op == "output" or (node in inside and node not in repeated):
            continue
        known[node] = suffix.node_copy(node, lambda n: known[n])
    returned = next(iter(reversed(graph.nodes))).args[0]
    suffix.output(fx.node.map_arg(returned, lambda n: known[n]))
    return suffix, known


def _rebuilt(suffix: fx.Graph, node: fx.Node, first: fx.Node) -> Any:
    """Write a crossing value that is no tensor into the suffix."""
    one, other = node.meta[VALUES]
    leaves, tree = pytree.tree_flatten(one)
    others = pytree.tree_leaves(other)
    built = [_rebuilt_leaf(suffix, node, first, a, b) for a, b in zip(leaves, others, strict=True)]
    return pytree.tree_unflatten(built, tree)


def _rebuilt_leaf(suffix: fx.Graph, node: fx.Node, first: fx.Node, one: Any, other: Any) -> Any:
    if isinstance(one, _LITERALS) and one == other:
        return one
    if isinstance(one, int) and isinstance(other, int):
        a, b = BATCHES
        factor, rest = divmod(other - one, b - a)
        if rest == 0:
            size = suffix.call_method("size", (first, 0))
            product = suffix.call_function(operator.mul, (size, factor))
            return suffix.call_function(operator.add, (product, one - factor * a))
    raise NotSplittableError(
        name=name_of(node), value=show_shape(node), reason="it depends on the batch's values"
    )
