"""Count what each vertex computes and weighs for one image, on meta."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.shapes import BATCHES, VALUES, Unknown, call, tensors_in


def flops_of(model_graph: ModelGraph) -> dict[str, tuple[int, int]]:
    """Return (FLOPs, bytes of the output) of one image for each vertex.

    Units:
        A multiplication with its addition counts as two FLOPs, as torch's counter does.
    """
    found: dict[str, tuple[int, int]] = {}
    known: dict[str, int] = {}  # blocks repeat, and counting is slow: each computation once
    for node in model_graph.vertices():
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta[VALUES][0])
        computation = _computation(model_graph, node, args, kwargs)
        if computation not in known:
            known[computation] = _flops(model_graph, node, args, kwargs)
        outputs = tensors_in(node.meta[VALUES][0])
        num_bytes = sum(t.numel() * t.element_size() for t in outputs)
        found[name_of(node)] = (known[computation] // BATCHES[0], num_bytes // BATCHES[0])
    return found


def _computation(model_graph: ModelGraph, node: fx.Node, args: Any, kwargs: Any) -> str:
    """Word what a vertex computes, from what sizes: equal words, equal work."""
    leaves = pytree.tree_leaves((args, kwargs))
    given = [tuple(x.shape) if isinstance(x, torch.Tensor) else x for x in leaves]
    if node.op != "call_module":
        return f"{node.op} {node.target} {given}"
    module = model_graph.module.get_submodule(str(node.target))
    # Only torch's own modules print all that decides their work.
    own = type(module).__module__.startswith("torch.nn.modules.")
    weights = [tuple(parameter.shape) for parameter in module.parameters()]
    return f"{module!r} {weights} {given} {'' if own else node.target}"


def _flops(model_graph: ModelGraph, node: fx.Node, args: Any, kwargs: Any) -> int:
    if node.op in ("placeholder", "get_attr") or isinstance(node.meta[VALUES][0], Unknown):
        return 0  # what only data can tell cannot be counted either
    # The counter's hooks refuse views of parameters, made without a gradient.
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call(model_graph.module, node, args, kwargs)
    return int(counter.get_total_flops())
