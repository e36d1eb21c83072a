"""Print a graph: one line a vertex, aligned, so that two graphs can be compared as texts."""

from __future__ import annotations

from torch import fx

from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.shapes import VALUES, attribute_at, kind_of, show_shape


def show(model_graph: ModelGraph) -> str:
    """Return the graph as text: name, kind, what it reads, shape, parameters, marks.

    Shape:
        N is the batch; `?` where an edit changed what a vertex reads and no pass asked since.
    """
    rows = [_row(model_graph, node) for node in model_graph.vertices()]
    returned = " ".join(map(name_of, model_graph.output().all_input_nodes))
    rows.append(("output", "", returned, "", "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(f"{_line(row, widths)}\n" for row in rows)


def _row(model_graph: ModelGraph, node: fx.Node) -> tuple[str, ...]:
    name = name_of(node)
    reads = " ".join(map(name_of, node.all_input_nodes))
    shape = show_shape(node) if VALUES in node.meta else "?"
    marks = [str(node.meta[FRESH])] if FRESH in node.meta else []
    marks += ["frozen"] if name in model_graph.frozen else []
    marks += ["frozen alone"] if name in model_graph.frozen_alone else []
    kind = kind_of(model_graph.module, node)
    return name, kind, reads, shape, str(_num_parameters(model_graph, node)), ", ".join(marks)


def _num_parameters(model_graph: ModelGraph, node: fx.Node) -> int:
    match node.op:
        case "call_module":
            module = model_graph.module.get_submodule(str(node.target))
            return sum(parameter.numel() for parameter in module.parameters())
        case "get_attr":
            return int(attribute_at(model_graph.module, str(node.target)).numel())
    return 0


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    name, kind, reads, shape, numel, marks = row
    cells = [name, kind, reads, shape]
    left = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=False))
    return f"{left}  {numel:>{widths[4]}}  {marks}".rstrip()
