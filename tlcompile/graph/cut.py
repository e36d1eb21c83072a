"""Choose what the prefix computes: all that is frozen, and what may follow without more bytes.

What crosses are rows, one for a sample, so that a row can be kept and read alone. Where a frozen
vertex computes something else (windows of all images, boxes), the suffix computes it again from rows
before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from tlcompile.graph import functions
from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.program import owned
from tlcompile.graph.shapes import BATCHES, MAY_WRITE, VALUES, WRITES, Unknown, tensors_in

_LITERALS = (int, float, bool, str, type(None), torch.dtype)

# Of torch.nn: without weights, they compute a sample from that sample alone, alike in both modes ...
_MODULES = {f"torch.nn.modules.{name}" for name in ("activation", "flatten", "pooling")}
# ... but for these, which draw, or see other samples where they are told so.
_BUT = (
    *(nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    *(nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin),
)

# Functions and methods that keep samples apart where the batch stays the first dimension.
_FUNCTIONS = {
    *("add", "sub", "subtract", "mul", "multiply", "div", "truediv", "neg", "abs", "average"),
    *("maximum", "minimum", "scale", "shift", "clamp", "sqrt", "square", "exp", "log", "pow"),
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("hardswish", "hardsigmoid", "hardtanh", "tanh", "sigmoid", "logsigmoid"),
    *("flatten", "unsqueeze", "permute", "transpose", "movedim"),
    *("contiguous", "cat", "concat", "mean", "sum", "amax", "amin", "global_pool"),
    *(
        f"{kind}_pool{dims}d"
        for kind in ("avg", "max", "lp", "adaptive_avg", "adaptive_max")
        for dims in (1, 2, 3)
    ),
}
_PARTS = {"chunk", "split", "split_with_sizes", "tensor_split", "unbind"}  # one tensor as several


@dataclass(frozen=True)
class Cut:
    """Which vertices the prefix computes, and how the suffix gets what it reads of them.

    Attributes:
        inside: Of the prefix.
        rows: Tensors with the batch first, in the order of computation: they cross.
        numbers: Sizes and the like: written into the suffix.
        again: All others that the suffix needs: it computes them itself.
        missed: Of these, the ones that it reads and that depend on the input.
    """

    inside: frozenset[fx.Node]
    rows: tuple[fx.Node, ...]
    numbers: tuple[fx.Node, ...]
    again: frozenset[fx.Node]
    missed: tuple[fx.Node, ...]

    def num_bytes(self) -> int:
        """Return the bytes of one sample that cross."""
        return sum(bytes_of(node) for node in self.rows)


def find_cut(model_graph: ModelGraph) -> Cut | None:
    """Cut behind the frozen vertices, or further on; None where nothing that computes is frozen."""
    graph = model_graph.graph
    frozen = {n for n in model_graph.vertices() if name_of(n) in model_graph.frozen}
    if not any(n.op not in ("placeholder", "get_attr") for n in frozen):
        return None
    inputs = {n for n in graph.nodes if n.op == "placeholder"}  # raw data crosses as it is
    inside = _with_plumbing(graph, frozen | inputs)
    dependent = _dependent(graph)
    cut = _cut_behind(graph, inside, dependent)
    if not any(owned(model_graph.module, n) for n in model_graph.vertices() if n not in inside):
        return cut  # nothing would be left to run in each step
    return _moved_on(model_graph, cut, dependent)


def _with_plumbing(graph: fx.Graph, core: Collection[fx.Node]) -> set[fx.Node]:
    """Add sizes, assertions and items of tuples that depend on these vertices alone.

    A module is never plumbing, whatever it returns: an attention that returns a tuple learns.
    """
    inside = set(core)
    for node in graph.nodes:
        if node in inside or node.op in ("output", "placeholder", "call_module"):
            continue
        reads = node.all_input_nodes
        if reads and inside.issuperset(reads) and _is_plumbing(node):
            inside.add(node)
    return inside


def _is_plumbing(node: fx.Node) -> bool:
    value = node.meta[VALUES][0]
    if _word(node) == "getitem" and not isinstance(_first_value(node), Tensor):
        return True
    if isinstance(value, Tensor | Unknown):
        return False
    return not tensors_in(value) or _word(node) in _PARTS


def _first_value(node: fx.Node) -> Any:
    return node.all_input_nodes[0].meta[VALUES][0]


def _word(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _dependent(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that depend on the model's input."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _cut_behind(graph: fx.Graph, inside: set[fx.Node], dependent: set[fx.Node]) -> Cut:
    """Find what crosses where these vertices are the prefix: walk back from who reads them."""
    crossing = [n for n in graph.nodes if n in inside and not inside.issuperset(n.users)]
    rows, numbers, again = set(), set(), set()
    waiting = list(crossing)
    while waiting:
        node = waiting.pop()
        if node in dependent and is_rows(node):
            rows.add(node)
        elif node in dependent and _follows_from_batch(node):
            numbers.add(node)
        elif node not in again:
            again.add(node)
            waiting += node.all_input_nodes
    return Cut(
        frozenset(inside),
        tuple(n for n in graph.nodes if n in rows),
        tuple(n for n in graph.nodes if n in numbers),
        frozenset(again),
        tuple(n for n in crossing if n in again and n in dependent),
    )


def together(graph: fx.Graph, cuts: Sequence[Cut]) -> Cut:
    """Return one cut behind which all of these lie; the rows of each of them cross.

    What is read behind all of them is read behind one, so the suffix needs no rows but theirs.
    """
    inside = set().union(*(cut.inside for cut in cuts))
    rows = {node for cut in cuts for node in cut.rows}
    last = _cut_behind(graph, inside, _dependent(graph))
    return replace(last, rows=tuple(node for node in graph.nodes if node in rows))


def is_rows(node: fx.Node) -> bool:
    """Tell whether a vertex computes a tensor with a row for each sample, and nothing else varies."""
    values = node.meta[VALUES]
    return all(isinstance(value, Tensor) and value.dim() > 0 for value in values) and all(
        value.shape == (batch, *values[0].shape[1:])
        for value, batch in zip(values, BATCHES, strict=True)
    )


def bytes_of(node: fx.Node) -> int:
    """Return the bytes of one row."""
    value = node.meta[VALUES][0]
    return int(value[0].numel()) * int(value.element_size())


def leaf_pairs(node: fx.Node) -> list[tuple[Any, Any]]:
    """Return what a vertex computes at both of BATCHES, leaf by leaf."""
    one, other = (pytree.tree_leaves(value) for value in node.meta[VALUES])
    return list(zip(one, other, strict=True))


def _follows_from_batch(node: fx.Node) -> bool:
    """Tell whether a value holds no tensors, and the batch's size tells it."""
    one, other = node.meta[VALUES]
    alike = pytree.tree_structure(one) == pytree.tree_structure(other)
    return alike and all(_is_number(*pair) for pair in leaf_pairs(node))


def _is_number(one: Any, other: Any) -> bool:
    if isinstance(one, _LITERALS) and one == other:
        return True
    return isinstance(one, torch.device) or line_of(one, other) is not None


def line_of(one: Any, other: Any) -> tuple[int, int] | None:
    """Return (factor, rest) of a number that is `factor * batch + rest`; else None."""
    if not (isinstance(one, int) and isinstance(other, int)):
        return None
    a, b = BATCHES
    factor, uneven = divmod(other - one, b - a)
    return None if uneven else (factor, one - factor * a)


def _moved_on(model_graph: ModelGraph, cut: Cut, dependent: set[fx.Node]) -> Cut:
    """Take all readers of a row in where they may be, as long as no more bytes cross.

    All readers at once: of an average and a maximum of one map, each alone would add its bytes. An
    added vertex that saves no bytes stays outside, so that runs with other heads share the rows.
    """
    for node in cut.rows:
        readers = set(node.users) - cut.inside
        if not readers or not all(_may_move(model_graph, reader, cut) for reader in readers):
            continue
        inside = _with_plumbing(model_graph.graph, cut.inside | readers)
        longer = _cut_behind(model_graph.graph, inside, dependent)
        if longer.num_bytes() > cut.num_bytes():
            continue
        found = _moved_on(model_graph, longer, dependent)
        own = not any(FRESH in reader.meta for reader in readers)
        if own or found.num_bytes() < cut.num_bytes():
            return found
    return cut


def _may_move(model_graph: ModelGraph, node: fx.Node, cut: Cut) -> bool:
    """Tell whether a vertex computes the same rows in both modes, from rows of the prefix alone."""
    if node.op == "output" or name_of(node) in model_graph.frozen_alone:
        return False
    sources = node.all_input_nodes
    tensors = [n for n in sources if tensors_in(n.meta[VALUES][0])]
    if not cut.inside.issuperset(sources) or not all(map(is_rows, (node, *tensors))):
        return False
    if node.meta.get(WRITES) or MAY_WRITE in node.meta:
        return False
    if node.op == "call_module":
        return _is_plain(model_graph.module.get_submodule(str(node.target)))
    home = str(getattr(node.target, "__module__", None) or "torch")
    of_torch = home.startswith(("torch", "_operator")) or home == functions.__name__
    return of_torch and _keeps_samples_apart(node, tensors)


def _keeps_samples_apart(node: fx.Node, tensors: list[fx.Node]) -> bool:
    word = _word(node)
    if word == "getitem":
        return len(tensors) == 1  # an index that is a tensor may name any sample
    if word == "squeeze":
        return len(node.args) + len(node.kwargs) > 1  # else it takes away a batch of one, too
    if word in ("reshape", "view"):
        return True
    numbers = [n for n in node.all_input_nodes if n not in tensors]
    steady = all(one == other for n in numbers for one, other in leaf_pairs(n))
    return word in _FUNCTIONS and steady


def _is_plain(module: nn.Module) -> bool:
    """Tell whether a module is torch's own, without weights, without hooks, and not random."""
    hooks = any(v for name, v in vars(module).items() if name.endswith("hooks"))
    known = type(module).__module__ in _MODULES and not isinstance(module, _BUT)
    plain = known or type(module) is nn.Identity
    return plain and not hooks and not any(True for _ in module.state_dict())
