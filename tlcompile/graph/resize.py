"""Give layers other widths: run with what is wanted, repair where widths clash, start again.

Readers downstream always follow: norms, the next convolutions and linear layers. A factor that is
broadcast (squeeze-excitation, a layer scale) follows what it scales. Nothing else spreads sideways:
where a sum needs layers beside the named ones, they are named, with the lines that resize all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from tlcompile.errors.edits import NoEffectError, ShapeError
from tlcompile.errors.resize import (
    FixedWidthError,
    ResizeClashError,
    ResizeFollowerError,
)
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_vertex, name_of
from tlcompile.graph.operations import (
    CONCATENATIONS,
    FACTORS,
    concatenated_axis,
    operands_of,
    word_of,
)
from tlcompile.graph.resize_lines import Line, Lines
from tlcompile.graph.shapes import VALUES, kind_of, record_shapes
from tlcompile.graph.width_run import Clash, Wanted, WidthRun
from tlcompile.graph.widths import Role, role_of, widths_of


@dataclass(frozen=True)
class Spread:
    """Layers beside the named ones that would have to change, too: a sum has one width.

    Attributes:
        clash: Where that was seen first.
        members: Names of the layers that change together.
        lines: The lines that resize all of them.
    """

    clash: Clash
    members: tuple[str, ...]
    lines: dict[str, Line]


def run_with_widths(
    model_graph: ModelGraph, lines: Lines, removed: Collection[fx.Node]
) -> tuple[WidthRun, Spread | None]:
    """Find every layer that changes with the wanted ones. The graph is not changed.

    Args:
        model_graph: The graph.
        lines: Which layers get which widths.
        removed: Vertices that an edit takes away; nothing passes through them.

    Raises:
        GraphError: The widths do not fit; the error has the line's key.
    """
    wanted = _wanted(model_graph, lines)
    before = _values(model_graph)
    beside: list[fx.Node] = []
    first: Clash | None = None
    while True:
        run = WidthRun(model_graph, before, wanted, removed)
        clash = run.clash
        if clash is None:
            break
        for operand, axis in clash.waiting:
            needed = before[operand].shape[axis]
            for node in _deciders(run, operand, needed, clash):
                _want(wanted, node, axis, clash)
                if node.op != "get_attr" and not _is_factor(run, clash.node, operand):
                    first = first or clash
                    beside.append(node)
    return run, _spread(run, lines, first, beside) if first else None


def target_of(model_graph: ModelGraph, vertex: str) -> fx.Node:
    """Return the layer that a line names.

    Raises:
        UnknownVertexError: It names nothing.
        ResizeFollowerError: It has no width of its own.
    """
    node = find_vertex(model_graph.graph, model_graph.module, model_graph.model, vertex)
    if _role(model_graph, node) is Role.DECIDES:
        return node
    raise ResizeFollowerError(
        name=name_of(node),
        kind=kind_of(model_graph.module, node),
        deciders=tuple(_deciders_before(model_graph, node)),
        key=("resize", vertex),
    )


def _role(model_graph: ModelGraph, node: fx.Node) -> Role:
    if node.op != "call_module":
        return Role.PASSES
    return role_of(model_graph.module.get_submodule(str(node.target)))


def _deciders_before(model_graph: ModelGraph, node: fx.Node) -> list[str]:
    """Name the layers that decide how wide a vertex is; none: it does, and nobody knows how."""
    if _role(model_graph, node) is Role.UNKNOWN:
        return []
    found, seen = set[fx.Node](), set[fx.Node]()
    waiting = list(node.all_input_nodes)
    while waiting:
        source = waiting.pop()
        if source not in seen and _role(model_graph, source) is Role.DECIDES:
            found.add(source)
        elif source not in seen:
            waiting += source.all_input_nodes
        seen.add(source)
    return [name_of(one) for one in model_graph.vertices() if one in found]


def _wanted(model_graph: ModelGraph, lines: Lines) -> Wanted:
    wanted = Wanted()
    for vertex, line in lines.items():
        node = target_of(model_graph, vertex)
        target = str(node.target)
        own = widths_of(model_graph.module.get_submodule(target))
        if line.out == own.out:
            raise NoEffectError(
                line=f"resize.{vertex}.out: {line.out}",
                because=f"'{name_of(node)}' is {own.out} wide already",
                instead="drop it, or write another width",
                key=("resize", vertex, "out"),
            )
        if target in wanted.lines:
            raise NoEffectError(
                line=f"resize.{vertex}",
                because=f"another line resizes '{name_of(node)}' already",
                instead="keep one of the two lines",
                key=("resize", vertex),
            )
        wanted.lines[target] = frozenset({vertex})
        if line.out is not None:
            wanted.out[target] = line.out
        if line.in_ is not None:
            wanted.in_[target] = line.in_
    return wanted


def _values(model_graph: ModelGraph) -> dict[fx.Node, Any]:
    """Return what each vertex computes; those that do not fit since an edit are left out."""
    for node in model_graph.vertices():
        if VALUES not in node.meta:
            try:
                record_shapes(model_graph, [node])
            except ShapeError:
                continue
    return {n: n.meta[VALUES][0] for n in model_graph.vertices() if VALUES in n.meta}


def _want(wanted: Wanted, node: fx.Node, axis: int, clash: Clash) -> None:
    target = str(node.target)
    other = wanted.out.setdefault(target, clash.width)
    if other != clash.width:
        both = (f"{name_of(node)}: {other}", f"{name_of(clash.changed)}: {clash.width}")
        raise ResizeClashError(
            name=name_of(clash.node), widths=both, key=("resize", min(clash.lines))
        )
    wanted.axes.setdefault(target, axis)
    wanted.lines[target] = wanted.lines.get(target, frozenset()) | clash.lines


# Who decides the width of an operand


def _deciders(run: WidthRun, operand: fx.Node, width: int, clash: Clash) -> list[fx.Node]:
    """Return the layers that decide an operand's width, back through norms and what has no tensors.

    Raises:
        FixedWidthError: The input decides, or a concatenation, or a layer without a rule.
    """
    found: list[fx.Node] = []
    waiting, seen = [operand], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if _decides(run, node, width):
            found.append(node)
            continue
        sources = _same_width(run, node, width)
        if not sources:
            raise _fixed(run, operand, width, node, clash)
        waiting += sources
    if all(str(node.target) in run.wanted.out for node in found):
        raise _fixed(run, operand, width, operand, clash)
    return found


def _decides(run: WidthRun, node: fx.Node, width: int) -> bool:
    if node.op == "get_attr":
        return width in run.before[node].shape
    if _role(run.model_graph, node) is not Role.DECIDES:
        return False
    return widths_of(run.model_graph.module.get_submodule(str(node.target))).out == width


def _same_width(run: WidthRun, node: fx.Node, width: int) -> list[fx.Node]:
    """Return what a vertex has its width from; none: it, or nothing, decides."""
    if _role(run.model_graph, node) in (Role.DECIDES, Role.UNKNOWN):
        return []
    values = run.before
    if word_of(node) in CONCATENATIONS and values[node].shape[concatenated_axis(node)] == width:
        return []
    sources = [n for n in node.all_input_nodes if isinstance(values[n], torch.Tensor | tuple)]
    if operands := operands_of(node, values):
        # What is broadcast follows by itself.
        sources = [n for n in operands if values[n].numel() == values[node].numel()] or operands
    return [n for n in sources if isinstance(values[n], tuple) or width in values[n].shape]


def _is_factor(run: WidthRun, node: fx.Node, operand: fx.Node) -> bool:
    """Tell whether an operand scales a larger one: a squeeze-excitation, a layer scale."""
    smaller = run.before[operand].numel() < max(
        run.before[n].numel() for n in operands_of(node, run.before)
    )
    return word_of(node) in FACTORS and smaller


def _fixed(
    run: WidthRun, operand: fx.Node, width: int, by: fx.Node, clash: Clash
) -> FixedWidthError:
    kind = kind_of(run.model_graph.module, by)
    return FixedWidthError(
        name=name_of(clash.node),
        other=name_of(operand),
        width=width,
        by="the input of the model" if by.op == "placeholder" else f"'{name_of(by)}' ({kind})",
        wanted=clash.width,
        key=("resize", min(clash.lines)),
    )


def _spread(run: WidthRun, lines: Lines, clash: Clash, beside: list[fx.Node]) -> Spread:
    """Name every layer that must change together, and the lines that resize all of them."""
    wanted = run.wanted
    of_lines = {target_of(run.model_graph, vertex): vertex for vertex in clash.lines}
    together = {n for n in beside if wanted.lines[str(n.target)] & clash.lines} | of_lines.keys()
    all_lines = dict(lines)
    for node in sorted(beside, key=list(run.before).index):
        because = lines[min(wanted.lines[str(node.target)])]
        all_lines[name_of(node)] = replace(because, out=wanted.out[str(node.target)], in_=None)
    members = tuple(name_of(n) for n in run.model_graph.vertices() if n in together)
    return Spread(clash, members, all_lines)
