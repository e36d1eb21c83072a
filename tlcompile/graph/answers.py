"""What a forward asks about sizes while it is traced, answered on meta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from tlcompile.graph.reach import ancestors

Inputs = Mapping[str, tuple[int, ...]]  # shape of one sample, without the batch, by name
VALUES_DECIDE = "the values of its data decide what it computes"


def answer(root: nn.Module, node: fx.Node, inputs: Inputs) -> bool:
    """Answer a question about sizes.

    Raises:
        TraceError: It is about the values of the data, or about the size of the batch.
    """
    try:
        one, other = (_on_meta(root, node, inputs, batch) for batch in (2, 3))
    except Exception as cause:  # a meta tensor has no values, and says so in many ways
        raise fx.proxy.TraceError(VALUES_DECIDE) from cause
    if isinstance(one, bool) and one == other:
        return one
    raise fx.proxy.TraceError(VALUES_DECIDE)


def _on_meta(root: nn.Module, wanted: fx.Node, inputs: Inputs, batch: int) -> Any:
    """Compute a node from the inputs on; tensors are on meta, so only sizes are known."""
    run = fx.Interpreter(root, graph=wanted.graph)
    image, needed = next(iter(inputs.values())), ancestors([wanted])
    with torch.no_grad():
        for node in [n for n in wanted.graph.nodes if n in needed]:
            if node.op == "placeholder":
                shape = inputs.get(str(node.target), image)
                run.env[node] = torch.empty((batch, *shape), device="meta")
            else:
                run.env[node] = run.run_node(node)
    return run.env[wanted]
