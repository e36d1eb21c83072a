"""Count what each vertex computes and weighs for one image, on meta."""

from __future__ import annotations

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.shapes import BATCHES, VALUES, call, tensors_in


def flops_of(model_graph: ModelGraph) -> dict[str, tuple[int, int]]:
    """Return (FLOPs, bytes of the output) of one image for each vertex.

    Units:
        A multiplication with its addition counts as two FLOPs, as torch's counter does.
    """
    found: dict[str, tuple[int, int]] = {}
    batch = BATCHES[0]
    for node in model_graph.vertices():
        outputs = tensors_in(node.meta[VALUES][0])
        num_bytes = sum(t.numel() * t.element_size() for t in outputs) // batch
        found[name_of(node)] = (_flops(model_graph, node) // batch, num_bytes)
    return found


def _flops(model_graph: ModelGraph, node: fx.Node) -> int:
    if node.op in ("placeholder", "get_attr"):
        return 0
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta[VALUES][0])
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call(model_graph.module, node, args, kwargs)
    return int(counter.get_total_flops())
