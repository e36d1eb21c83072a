"""Cut the graph at the freeze point: a frozen prefix, a trainable suffix, a boundary between them.

Prefix and suffix are programs over one module tree. Only tensors with the batch first cross; numbers
that belong to the batch are computed again from a boundary tensor, constants are written in. Where
exactly the cut lies is graph/cut.py's choice.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tlcompile.errors.base import listed
from tlcompile.graph.cut import Cut, bytes_of, find_cut, leaf_pairs, line_of, together
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import VERTEX, name_of
from tlcompile.graph.program import Program, owned, program_alone, program_of
from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import MAY_WRITE, VALUES, Unknown, show_shape, tensors_in


@dataclass(frozen=True)
class Boundary:
    """One tensor that crosses.

    Attributes:
        vertex: The frozen vertex that computes it.
        shape: Of one sample, without the batch.
        num_bytes: Of one sample, in its own dtype.
        dtype: In torch's words.
        program: Computes this tensor alone, from those inputs of the model that it needs. Its text
            is the same whatever stands behind the boundary.
        targets: Modules and tensors of the tree that the program uses, in order, each once.
    """

    vertex: str
    shape: tuple[int, ...]
    num_bytes: int
    dtype: str = "float32"
    program: Program = field(default=Program("", "", {}, {}, ()), repr=False)
    targets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Split:
    """Two programs and what crosses between them.

    Attributes:
        prefix: Inputs to a tuple of boundary tensors. Deterministic; nothing in it learns.
        suffix: Boundary tensors to what the model returns in eval mode.
        boundary: What crosses, in order.
        suffix_train: The same for train mode, where that returns more.
        notes: Sentences for the plan.
    """

    prefix: Program
    suffix: Program
    boundary: tuple[Boundary, ...]
    suffix_train: Program | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NotCacheable:
    """Nothing of the frozen part can be kept for another time.

    Attributes:
        reason: One sentence, by name.
    """

    reason: str


def split_frozen(model_graph: ModelGraph) -> Split | NotCacheable | None:
    """Cut behind the frozen vertices; None where nothing that computes is frozen.

    Where the graph has taps, the boundary is that of each of them, and of nothing else.
    """
    graph = model_graph.graph
    views = [model_graph.at(tap) for tap in model_graph.taps] or [model_graph]
    found = [_kept(view) for view in views]
    cuts = [one for one in found if isinstance(one, Cut)]
    if not cuts:
        return next((one for one in found if isinstance(one, NotCacheable)), None)
    cut = cuts[0] if len(cuts) == 1 else together(graph, cuts)
    suffix, known = _suffix_graph(graph, cut)
    boundary = tuple(_boundary(node) for node in cut.rows)
    prefix = program_of(graph, "prefix", output=cut.rows)
    notes = _notes(cut)
    if model_graph.eval_output is None:
        return Split(prefix, program_of(suffix, "suffix"), boundary, notes=notes)
    evaluated = program_of(suffix, "suffix", output=known[model_graph.eval_output])
    return Split(prefix, evaluated, boundary, program_of(suffix, "suffix_train"), notes)


def _kept(model_graph: ModelGraph) -> Cut | NotCacheable | None:
    """Find the cut behind what is frozen, if anything before it is worth keeping."""
    cut = find_cut(model_graph)
    if cut is None:
        return None
    if all(node.op == "placeholder" for node in cut.rows) and not cut.missed:
        return None
    if cut.missed and not any(owned(model_graph.module, n) for n in ancestors(cut.rows)):
        return NotCacheable(_reason(cut))
    return cut


def _reason(cut: Cut) -> str:
    return f"nothing of the frozen part can be kept: {next(iter(_whys(cut)))}"


def _notes(cut: Cut) -> tuple[str, ...]:
    """Say which frozen vertices run in every step."""
    rows = listed([name_of(node) for node in cut.rows])
    return tuple(f"{why}, so every step computes it again from {rows}" for why in _whys(cut))


def _whys(cut: Cut) -> dict[str, None]:
    """Return the reasons, each once; sizes and the like cost nothing and need none."""
    values = {node: node.meta[VALUES][0] for node in cut.missed}
    dear = [n for n, value in values.items() if isinstance(value, Unknown) or tensors_in(value)]
    return dict.fromkeys(map(_why, dear or cut.missed))


def _why(node: fx.Node) -> str:
    """Word why a vertex' values cannot be kept; of what only data can tell, where that begins."""
    for source in node.all_input_nodes:
        if isinstance(source.meta[VALUES][0], Unknown):
            return _why(source)
    shape = show_shape(node)
    if isinstance(node.meta[VALUES][0], Tensor):
        return f"'{name_of(node)}' {shape} has no row for each sample"
    return f"what '{name_of(node)}' computes {shape if ' ' in shape else f'is a {shape}'}"


def _boundary(node: fx.Node) -> Boundary:
    value = node.meta[VALUES][0]
    program = program_alone(node)
    return Boundary(
        name_of(node),
        tuple(value.shape[1:]),
        bytes_of(node),
        str(value.dtype).removeprefix("torch."),
        program,
        program.targets,
    )


def _suffix_graph(graph: fx.Graph, cut: Cut) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    """Copy what is outside, or computed again; what crosses becomes an input, a constant, a size."""
    suffix = fx.Graph()
    known: dict[fx.Node, Any] = {}
    for index, node in enumerate(cut.rows):
        known[node] = suffix.placeholder(f"boundary{index}")
        known[node].meta[VERTEX] = name_of(node)
    first = known[cut.rows[0]]
    copied = [n for n in graph.nodes if n in cut.again or n not in cut.inside]
    if any(MAY_WRITE in node.meta for node in copied):
        for node in cut.rows:  # a feature that is kept is read again in the next epoch
            known[node] = suffix.call_method("clone", (known[node],))
    for node in cut.numbers:
        known[node] = _rebuilt(suffix, node, first)
    for node in copied:
        if node.op != "output":
            known[node] = suffix.node_copy(node, lambda n: known[n])
    returned = next(iter(reversed(graph.nodes))).args[0]
    suffix.output(fx.node.map_arg(returned, lambda n: known[n]))
    return suffix, known


def _rebuilt(suffix: fx.Graph, node: fx.Node, first: fx.Node) -> Any:
    """Write a crossing value that is no tensor into the suffix."""
    tree = pytree.tree_structure(node.meta[VALUES][0])
    built = [_rebuilt_leaf(suffix, first, one, other) for one, other in leaf_pairs(node)]
    return pytree.tree_unflatten(built, tree)


def _rebuilt_leaf(suffix: fx.Graph, first: fx.Node, one: Any, other: Any) -> Any:
    if isinstance(one, torch.device):
        return suffix.call_function(getattr, (first, "device"))
    if one == other:
        return one
    line = line_of(one, other)
    assert line is not None, "only numbers of the batch are rebuilt"
    size = suffix.call_method("size", (first, 0))
    product = suffix.call_function(operator.mul, (size, line[0]))
    return suffix.call_function(operator.add, (product, line[1]))
