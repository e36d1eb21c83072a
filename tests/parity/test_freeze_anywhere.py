"""Freezing up to every vertex of a model: all of it compiles, and runs in halves on meta."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils import _pytree as pytree

from tlcompile.errors.graph import SharedModuleError
from tlcompile.graph.model_graph import ModelGraph, graph_of_base
from tlcompile.graph.names import name_of
from tlcompile.graph.program import program_of
from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.split import NotCacheable, Split, split_frozen
from tlcompile.graph.writes import separate_writes
from tlcompile.passes.check_frozen import CheckFrozen
from tlcompile.zoo.torchvision import open_torchvision

BATCH = 5  # none of those at which shapes were recorded

# How many freeze points are cached as they are, moved back, refused because one module is on both
# sides (a stochastic depth that a block calls twice), and only read the input. Measured.
FAMILIES = {
    "squeezenet1_1": (0, 0, 0, 0),
    "vit_b_32": (0, 0, 0, 0),
    "resnet18": (0, 0, 0, 0),
    "densenet121": (0, 0, 0, 0),
    "mobilenet_v3_small": (0, 0, 0, 0),
    "efficientnet_b0": (0, 0, 0, 0),
    "regnet_y_400mf": (0, 0, 0, 0),
    "convnext_tiny": (0, 0, 0, 0),
    "swin_t": (0, 0, 0, 0),
    "swin_v2_t": (0, 0, 0, 0),
    "maxvit_t": (0, 0, 0, 0),
    "googlenet": (0, 0, 0, 0),
    "inception_v3": (0, 0, 0, 0),
    "shufflenet_v2_x1_0": (0, 0, 0, 0),
    "lraspp_mobilenet_v3_large": (0, 0, 0, 0),
    "mvit_v2_s": (0, 0, 0, 0),
    "s3d": (0, 0, 0, 0),
}
QUICK = ("squeezenet1_1", "vit_b_32")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_every_vertex_is_a_freeze_point(name: str) -> None:
    model_graph = graph_of_base(open_torchvision(name, "default", None, load=False))
    record_shapes(model_graph)
    separate_writes(model_graph)
    found = Counter(_kind(model_graph, vertex) for vertex in list(model_graph.names()))
    print(name, dict(found))
    kinds = ("cached", "moved back", "shared", "nothing")
    assert tuple(found[kind] for kind in kinds) == FAMILIES[name]
    assert found.total() == sum(FAMILIES[name])


def _kind(model_graph: ModelGraph, vertex: str) -> str:
    node = model_graph.names()[vertex]
    model_graph.frozen = {name_of(n) for n in ancestors([node])}
    try:
        CheckFrozen(points=(vertex,)).apply(model_graph)
    except SharedModuleError:
        return "shared"
    split = split_frozen(model_graph)
    if split is None:
        return "nothing"
    if isinstance(split, NotCacheable):
        return "not cacheable"
    _check_on_meta(model_graph, split)
    return "moved back" if split.notes else "cached"


def _check_on_meta(model_graph: ModelGraph, split: Split) -> None:
    inputs = [
        torch.empty((BATCH, *shape), device="meta") for shape in model_graph.sample_shapes.values()
    ]
    root = model_graph.module
    with torch.no_grad():
        rows = split.prefix.function()(root, *inputs)
        whole = program_of(model_graph.graph, "whole", output=model_graph.eval_output).function()
        shapes = [
            [leaf.shape for leaf in pytree.tree_leaves(value)]
            for value in (split.suffix.function()(root, *rows), whole(root, *inputs))
        ]
    assert shapes[0] == shapes[1]
    assert [tuple(row.shape) for row in rows] == [(BATCH, *one.shape) for one in split.boundary]
