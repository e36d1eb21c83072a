"""Freezing up to every vertex of a model: all of it compiles, and runs in halves on meta."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tlcompile.errors.graph import SharedModuleError
from tlcompile.graph.model_graph import ModelGraph, graph_of_base
from tlcompile.graph.names import name_of
from tlcompile.graph.program import Program, program_of
from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.split import NotCacheable, Split, split_frozen
from tlcompile.graph.writes import separate_writes
from tlcompile.passes.check_frozen import CheckFrozen
from tlcompile.zoo.torchvision import open_torchvision

BATCH = 5  # none of those at which shapes were recorded

EVERY = 10  # of how many freeze points one is run; all are cut, and written as programs

# How many vertices, as freeze points, are cut there or behind, are moved back, are refused because
# one module would be on both sides (a stochastic depth that a block calls twice), and are not behind
# an input. Measured.
FAMILIES = {
    "squeezenet1_1": (66, 0, 0, 1),
    "vit_b_32": (220, 0, 0, 15),
    "resnet18": (69, 0, 0, 1),
    "mobilenet_v3_small": (157, 0, 0, 1),
    "densenet121": (431, 0, 0, 1),
    "convnext_tiny": (192, 0, 0, 19),
    "swin_t": (65, 0, 96, 1),
    "swin_v2_t": (65, 0, 96, 1),
    "googlenet": (210, 0, 0, 1),
    "shufflenet_v2_x1_0": (367, 0, 0, 1),
    "lraspp_mobilenet_v3_large": (195, 0, 0, 3),
    "s3d": (257, 0, 0, 1),
}
QUICK = ("squeezenet1_1",)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_every_vertex_is_a_freeze_point(name: str) -> None:
    model_graph = graph_of_base(open_torchvision(name, "default", None, load=False))
    record_shapes(model_graph)
    separate_writes(model_graph)
    whole = _shapes(
        _run(model_graph, program_of(model_graph.graph, "whole", output=model_graph.eval_output))
    )
    found: Counter[str] = Counter()
    for index, vertex in enumerate(list(model_graph.names())):
        kind, split = _cut_at(model_graph, vertex)
        found[kind] += 1
        if split and index % EVERY == 0:
            rows = _run(model_graph, split.prefix)
            shapes = [(BATCH, *one.shape) for one in split.boundary]
            assert [tuple(row.shape) for row in rows] == shapes, vertex
            assert _shapes(_run(model_graph, split.suffix, *rows)) == whole, vertex
    kinds = ("cut", "moved back", "shared", "nothing")
    assert tuple(found[kind] for kind in kinds) == FAMILIES[name]
    assert found.total() == sum(FAMILIES[name])


def _cut_at(model_graph: ModelGraph, vertex: str) -> tuple[str, Split | None]:
    node = model_graph.names()[vertex]
    model_graph.frozen = {name_of(n) for n in ancestors([node])}
    try:
        CheckFrozen(points=(vertex,)).apply(model_graph)
    except SharedModuleError:
        return "shared", None
    split = split_frozen(model_graph)
    if not isinstance(split, Split):
        return "not cacheable" if isinstance(split, NotCacheable) else "nothing", None
    return "moved back" if split.notes else "cut", split


def _run(model_graph: ModelGraph, program: Program, *rows: Tensor) -> Any:
    """Run a program on meta: the inputs, or rows, are of another batch than was recorded."""
    shapes = model_graph.sample_shapes.values()
    given = rows or [torch.empty((BATCH, *shape), device="meta") for shape in shapes]
    with torch.no_grad():
        return program.function()(model_graph.module, *given)


def _shapes(value: Any) -> list[torch.Size]:
    return [leaf.shape for leaf in pytree.tree_leaves(value)]
