"""Ask torch whether a vertex draws random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.shapes import VALUES, Unknown, call


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notice operations that torch itself marks as drawing from a generator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.random = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        self.random |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def draws_random_numbers(model_graph: ModelGraph, node: fx.Node) -> bool:
    """Run a vertex on meta, in eval mode, and tell whether anything in it is random.

    torch.nn's own layers are known: only dropout draws, and not in eval mode.
    """
    if node.op in ("placeholder", "get_attr", "output"):
        return False
    if isinstance(node.meta[VALUES][0], Unknown):
        return False  # it cannot be asked; what it computes cannot cross the freeze point either
    if node.op == "call_module":
        kind = type(model_graph.module.get_submodule(str(node.target)))
        if kind.__module__.startswith("torch.nn.modules."):
            return False
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta[VALUES][0])
    watch = _Watch()
    with torch.no_grad(), watch:
        call(model_graph.module, node, args, kwargs)
    return watch.random
