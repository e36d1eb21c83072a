"""Stages: the same four words for every family. stage1..stage4 are the strides 4, 8, 16, 32."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator

from torch import Tensor, fx

from tlcompile.errors.graph import AmbiguousNameError, UnknownStageError
from tlcompile.graph.head import find_head, main_output
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_region, name_of
from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import VALUES, record_shapes, show_shape, tensors_in

OCTAVES = {f"stage{octave - 1}": octave for octave in (2, 3, 4, 5)}


def find_stages(model_graph: ModelGraph) -> dict[str, fx.Node]:
    """Return the last vertex of each stage that the model has.

    A candidate is a vertex after which exactly one tensor that depends on the input is alive. Its
    octave is log2(input side / map side). In each octave the candidate that ends the outermost
    module wins, the last one among equals. A model with fewer than two octaves (a vision
    transformer) is cut at the quarters of its longest run of equal blocks. All of this at the size
    that the base was made for: a stage is the same vertex whatever the size of the images.
    """
    with _at_native_size(model_graph):
        return _stages(model_graph)


@contextlib.contextmanager
def _at_native_size(model_graph: ModelGraph) -> Iterator[None]:
    """Let every vertex have the shape that it has at the base's own size, for a while."""
    own = model_graph.sample_shapes
    if own == model_graph.native_shapes:
        yield
        return
    values = {node: node.meta.pop(VALUES, None) for node in model_graph.graph.nodes}
    model_graph.sample_shapes = model_graph.native_shapes
    try:
        record_shapes(model_graph)
        yield
    finally:
        model_graph.sample_shapes = own
        for node, value in values.items():
            node.meta.pop(VALUES, None)
            if value is not None:
                node.meta[VALUES] = value


def _stages(model_graph: ModelGraph) -> dict[str, fx.Node]:
    side = next(iter(model_graph.sample_shapes.values()))[-1]
    best: dict[int, fx.Node] = {}
    smallest = side
    candidates = list(_candidates(model_graph))
    for node in candidates:
        size = _map_side(node)
        if size is None or size > smallest:
            continue
        smallest = size
        octave = round(math.log2(side / size))
        old = best.get(octave)
        if old is None or _depth(node) <= _depth(old):
            best[octave] = node
    found = {name: best[octave] for name, octave in OCTAVES.items() if octave in best}
    return found if len(found) >= 2 else _quarters(candidates) or found


def _candidates(model_graph: ModelGraph) -> Iterator[fx.Node]:
    """Yield vertices before the head after which one tensor that depends on the input is alive."""
    head = find_head(model_graph)
    # Auxiliary heads would keep their tensors alive.
    wanted = ancestors([main_output(model_graph)])
    nodes = [node for node in model_graph.graph.nodes if node in wanted]
    inputs = {n for n in nodes if n.op == "placeholder"}
    dependent = {n for n in nodes if n.op == "placeholder"}
    for node in nodes:
        if any(source in dependent for source in node.all_input_nodes):
            dependent.add(node)
    before_head = ancestors(head.features) if head else set(nodes)
    position = {n: i for i, n in enumerate(nodes)}
    end = len(nodes)
    # Who only asks for sizes (lraspp, at its end) needs no tensor: numbers cross as numbers.
    readers = {n: [position[u] for u in n.users if u in position and _is_data(u)] for n in nodes}
    last_use = {n: max(readers[n], default=end) for n in nodes}
    alive: set[fx.Node] = set()
    for index, node in enumerate(nodes):
        if node in dependent and _is_tensor(node):
            alive.add(node)
        alive = {n for n in alive if last_use[n] > index}
        if alive == {node} and node in before_head and node not in inputs:
            yield node


def _is_data(node: fx.Node) -> bool:
    return node.op == "output" or bool(tensors_in(node.meta[VALUES][0]))


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get(VALUES, (None,))[0], Tensor)


def _map_side(node: fx.Node) -> int | None:
    """Return the side of a square map, of a clip too, channels first or last; else None."""
    shape = tuple(node.meta[VALUES][0].shape)
    if len(shape) not in (4, 5):
        return None
    if shape[-2] == shape[-1]:
        return int(shape[-1])
    return int(shape[-3]) if shape[-3] == shape[-2] else None


def _depth(node: fx.Node) -> int:
    """Return how deep the outermost module lies that ends with this vertex."""
    own = name_of(node).split(".")
    following = node.next
    after = name_of(following).split(".") if following.op != "output" else [""]
    shared = sum(
        1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(own, after, strict=False))
    )
    return shared + 1


def _quarters(candidates: list[fx.Node]) -> dict[str, fx.Node]:
    """Cut the longest run of equal blocks (`encoder.layers.encoder_layer_7`) into quarters."""
    ends: dict[str, dict[str, fx.Node]] = {}
    for node in candidates:
        parts = name_of(node).split(".")
        for depth in range(1, len(parts)):
            block, parent = parts[depth - 1], ".".join(parts[: depth - 1])
            if any(c.isdigit() for c in block):
                ends.setdefault(parent, {})[block] = node
    longest = max(ends.values(), key=len, default={})
    blocks = list(longest.values())
    if len(blocks) < 4:
        return {}
    return {f"stage{q}": blocks[len(blocks) * q // 4 - 1] for q in (1, 2, 3, 4)}


def find_stage(model_graph: ModelGraph, name: str) -> fx.Node:
    """Return the last vertex of one stage.

    Raises:
        UnknownStageError: The model has no such stage.
    """
    stages = find_stages(model_graph)
    if name not in stages:
        raise UnknownStageError(model=model_graph.model, name=name, stages=tuple(stages))
    return stages[name]


def refuse_ambiguous(model_graph: ModelGraph, name: str) -> None:
    """Refuse a stage's name that is also a module which ends elsewhere (ShuffleNet's stage2)."""
    if not any(v == name or v.startswith(f"{name}.") for v in model_graph.names()):
        return
    vertex = find_region(model_graph.graph, model_graph.module, model_graph.model, name)[-1]
    stage = find_stage(model_graph, name)
    if vertex is not stage:
        raise AmbiguousNameError(
            model=model_graph.model,
            name=name,
            vertex_shape=show_shape(vertex),
            stage_end=name_of(stage),
            stage_shape=show_shape(stage),
        )
