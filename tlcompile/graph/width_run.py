"""Run a graph on meta with other widths: who changes, and where two widths clash."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.resize import (
    NotDivisibleError,
    NoWidthRuleError,
    ResizeClashError,
    ResizeInputError,
    SharedWidthError,
    WrittenWidthError,
)
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.operations import (
    VIEWS,
    changed_axes,
    common_axes,
    cuts,
    keeps_place,
    operands_of,
    word_of,
)
from tlcompile.graph.shapes import Unknown, attribute_at, call, kind_of
from tlcompile.graph.widths import (
    Role,
    Widths,
    channel_axis,
    divisor_of,
    following,
    role_of,
    widths_of,
    with_widths,
)


@dataclass
class Wanted:
    """Widths asked for, by the target of a layer or a bare parameter, and by which lines.

    Attributes:
        out: Output widths.
        in_: Input widths.
        axes: Of the width of a bare parameter.
        lines: The vertices that the recipe's lines name, because of which a width changes.
    """

    out: dict[str, int] = field(default_factory=dict)
    in_: dict[str, int] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    lines: dict[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Clash:
    """Operands that had one width and have two now.

    Attributes:
        node: What reads them.
        width: The new one.
        changed: An operand that has it.
        waiting: Operands that have the old one, with the axis of the width.
        lines: Because of which lines.
    """

    node: fx.Node
    width: int
    changed: fx.Node
    waiting: tuple[tuple[fx.Node, int], ...]
    lines: frozenset[str]


class WidthRun:
    """One run of a graph with some widths changed. The graph itself is only read.

    Attributes:
        before: What each vertex computes in the graph as it is; those that do not fit are left out.
        after: What it computes now; those behind what an edit takes away are left out.
        widths: Of each layer that changes, by target.
        parameters: (axis, width) of each bare parameter that changes, by target.
        lines: Because of which lines a vertex' own value has another shape.
        input_lines: Because of which lines a layer reads another width, by target.
        clash: The first place where two widths meet; nothing behind it was run.
    """

    def __init__(
        self,
        model_graph: ModelGraph,
        before: dict[fx.Node, Any],
        wanted: Wanted,
        removed: Collection[fx.Node],
    ) -> None:
        self.model_graph = model_graph
        self.before = before
        self.wanted = wanted
        self.after: dict[fx.Node, Any] = {}
        self.widths: dict[str, Widths] = {}
        self.parameters: dict[str, tuple[int, int]] = {}
        self.lines: dict[fx.Node, frozenset[str]] = {}
        self.input_lines: dict[str, frozenset[str]] = {}
        self.clash: Clash | None = None
        for node in model_graph.vertices():
            if node not in removed:
                self._visit(node)
            if self.clash:
                return
        self._refuse_shared(removed)

    def changed(self, node: fx.Node) -> bool:
        """Tell whether a vertex computes another shape than before."""
        return node in self.after and _shapes(self.after[node]) != _shapes(self.before[node])

    def _visit(self, node: fx.Node) -> None:
        target = str(node.target) if node.op in ("call_module", "get_attr") else ""
        asked = target in self.wanted.lines
        moved = [source for source in node.all_input_nodes if self.changed(source)]
        known = all(source in self.after for source in node.all_input_nodes)
        if not known or node not in self.before:
            if asked and node.op == "call_module":
                self._resized(node, self.model_graph.module.get_submodule(target))
            return
        if not moved and not asked:
            self.after[node] = self.before[node]
            return
        lines = frozenset[str]().union(*(self.lines[source] for source in moved))
        if moved and target:
            self.input_lines[target] = self.input_lines.get(target, frozenset()) | lines
        try:
            value = self._value(node, target, lines)
        except TLCompileError as error:
            blamed = lines or self.wanted.lines.get(target, frozenset())
            error.key = error.key or ("resize", min(blamed))
            raise
        if self.clash is None:
            self.after[node] = value
            # A layer that is told its width gets it from there, whatever it reads.
            own = self.wanted.lines.get(target) if target in self.wanted.out else None
            self.lines[node] = own or lines

    def _value(self, node: fx.Node, target: str, lines: frozenset[str]) -> Any:
        if isinstance(self.before[node], Unknown):
            raise self._written(node, "what it computes depends on the data")
        match node.op:
            case "call_module":
                return self._run_module(node, target)
            case "get_attr":
                return self._parameter(node, target)
            case _:
                self.clash = self._disagreement(node, lines)
                return None if self.clash else self._run_function(node)

    # Layers

    def _run_module(self, node: fx.Node, target: str) -> Any:
        module = self.model_graph.module.get_submodule(target)
        role = role_of(module)
        if role is Role.UNKNOWN:
            reads = tuple(self._worded(s, self.after) for s in node.all_input_nodes)
            raise NoWidthRuleError(name=name_of(node), kind=type(module).__name__, shapes=reads)
        if role is Role.PASSES:
            return self._computed(node, module)
        return self._computed(node, self._resized(node, module))

    def _resized(self, node: fx.Node, module: nn.Module) -> nn.Module:
        """Return a layer with the widths that reach it or are asked for."""
        target = str(node.target)
        in_ = self._input_width(node, module)
        if role_of(module) is Role.FOLLOWS:
            widths = following(module, in_)
        else:
            widths = Widths(in_, self.wanted.out.get(target, widths_of(module).out))
        if widths == widths_of(module) and target not in self.wanted.lines:
            return module
        if self.widths.setdefault(target, widths) != widths:
            raise self._shared(target)
        divisor = divisor_of(module)
        for width in (widths.in_, widths.out):
            if width % divisor:
                raise NotDivisibleError(
                    name=name_of(node), kind=type(module).__name__, groups=divisor, width=width
                )
        return with_widths(module, widths)

    def _input_width(self, node: fx.Node, module: nn.Module) -> int:
        """Return what reaches a layer; what its line promises where that is not there yet."""
        target, source = str(node.target), node.all_input_nodes[0]
        promised = self.wanted.in_.get(target)
        if source not in self.after:
            return promised or widths_of(module).in_
        read = self.after[source]
        delivered = int(read.shape[channel_axis(module, read.dim())])
        if promised not in (None, delivered):
            raise ResizeInputError(
                name=name_of(node),
                width=promised,
                source=name_of(source),
                shape=_worded(read),
                delivered=delivered,
                key=("resize", min(self.wanted.lines[target]), "in"),
            )
        return delivered

    def _parameter(self, node: fx.Node, target: str) -> torch.Tensor:
        axis, width = self.parameters[target] = self.wanted.axes[target], self.wanted.out[target]
        shape = list(self.before[node].shape)
        shape[axis] = width
        return torch.empty(shape, dtype=self.before[node].dtype, device="meta")

    # Functions

    def _disagreement(self, node: fx.Node, lines: frozenset[str]) -> Clash | None:
        """Return the clash, if operands had one width and have two now."""
        operands = operands_of(node, self.before)
        for axis in common_axes(node, [self.before[n] for n in operands]):
            # By the shapes before: an operand of size 1 beside wider ones is broadcast, and stays.
            there = [n for n in operands if self.before[n].dim() >= -axis]
            widest = max(self.before[n].shape[axis] for n in there)
            full = [n for n in there if self.before[n].shape[axis] == widest]
            changed = [n for n in full if self.after[n].shape[axis] != widest]
            widths = {int(self.after[n].shape[axis]) for n in changed}
            if len(widths) > 1:
                raise ResizeClashError(
                    name=name_of(node),
                    widths=tuple(
                        f"{_named(self.lines[n])}: {self.after[n].shape[axis]}" for n in changed
                    ),
                )
            waiting = tuple((n, axis) for n in full if n not in changed)
            if changed and waiting:
                return Clash(node, widths.pop(), changed[0], waiting, lines)
        return None

    def _run_function(self, node: fx.Node) -> Any:
        value = self._computed(node, self.model_graph.module)
        if written := self._written_in(node, value):
            raise self._written(node, written)
        return value

    def _computed(self, node: fx.Node, module: nn.Module) -> Any:
        """Compute a vertex on what its inputs are now; `module` is the layer itself, if it is one."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.after.__getitem__)
        try:
            with torch.no_grad():
                if node.op == "call_module":
                    return module(*args, **kwargs)
                return call(module, node, args, kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as cause:
            raise self._written(
                node, str(cause).splitlines()[0] if str(cause) else "refused"
            ) from cause

    def _written_in(self, node: fx.Node, value: Any) -> str:
        """Say how a width is written into a vertex that nevertheless runs; empty: it is not."""
        old = self.before[node]
        if len(pytree.tree_leaves(value)) != len(pytree.tree_leaves(old)):
            return "it gives another number of tensors"
        read = node.all_input_nodes[0]
        before, after = self.before[read], self.after[read]
        if not isinstance(before, torch.Tensor) or not isinstance(value, torch.Tensor):
            return ""
        axes = changed_axes(before, after)
        if word_of(node) in VIEWS and axes and not keeps_place(before, axes, old, value):
            return "the new channels land in another dimension"
        if word_of(node) == "getitem" and any(cuts(node.args[1], a, before.dim()) for a in axes):
            return "it takes channels by their number"
        return ""

    # Words

    def _written(self, node: fx.Node, reason: str) -> WrittenWidthError:
        return WrittenWidthError(
            name=name_of(node),
            kind=kind_of(self.model_graph.module, node),
            before=tuple(self._worded(n, self.before) for n in node.all_input_nodes),
            after=tuple(self._worded(n, self.after) for n in node.all_input_nodes),
            reason=reason,
        )

    def _worded(self, node: fx.Node, values: dict[fx.Node, Any]) -> str:
        return f"{name_of(node)}: {_worded(values[node])}"

    def _refuse_shared(self, removed: Collection[fx.Node]) -> None:
        """Refuse a layer that is called with two widths, or whose tensors have other names, too."""
        root = self.model_graph.module
        names: dict[int, set[str]] = {}
        for name, tensor in root.named_parameters(remove_duplicate=False):
            names.setdefault(id(tensor), set()).add(name)
        for target in (*self.widths, *self.parameters):
            found = attribute_at(root, target)
            own = found.parameters() if isinstance(found, nn.Module) else [found]
            if any(len(names.get(id(tensor), ())) > 1 for tensor in own):
                raise self._shared(target)
        for node in self.model_graph.vertices():
            if node.op == "call_module" and str(node.target) in self.widths and node not in removed:
                read = self.after.get(node.all_input_nodes[0])
                module = root.get_submodule(str(node.target))
                if isinstance(read, torch.Tensor):
                    width = read.shape[channel_axis(module, read.dim())]
                    if width != self.widths[str(node.target)].in_:
                        raise self._shared(str(node.target))

    def _shared(self, target: str) -> SharedWidthError:
        places = [name_of(n) for n in self.model_graph.vertices() if str(n.target) == target]
        lines = self.wanted.lines.get(target) or self.input_lines.get(target) or frozenset()
        key = ("resize", min(lines)) if lines else ()
        return SharedWidthError(name=target, places=tuple(places), key=key)


def _shapes(value: Any) -> list[Any]:
    leaves = pytree.tree_leaves(value)
    return [leaf.shape if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def _worded(value: Any) -> str:
    if isinstance(value, Unknown):
        return "depends on the data"
    if not isinstance(value, torch.Tensor):
        return str(value)
    return f"({', '.join(('N', *map(str, value.shape[1:])))})"


def _named(lines: frozenset[str]) -> str:
    return " and ".join(sorted(lines))
