"""Find the BatchNorms of the frozen prefix that can be folded into the layer before them.

A frozen BatchNorm is a scale and a shift of each channel, and so is what a convolution's or a
linear layer's weight and bias give: the two become one layer, in a copy of the modules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, fx, nn

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.program import own_modules
from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import VALUES, attribute_at

# Exactly these: a subclass may compute something else. Linear's features come last, so a norm over
# (N, C) alone scales them.
_NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
_DIMENSIONS = {nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5, nn.Linear: 2}  # of an output


@dataclass(frozen=True)
class Fold:
    """A layer and the norm that alone reads it, by their places in the module tree."""

    layer: str
    norm: str


def find_folds(model_graph: ModelGraph, boundary: Collection[fx.Node]) -> tuple[Fold, ...]:
    """Return what can be folded on the way from the inputs to the boundary."""
    inside = ancestors(boundary)
    calls = [n for n in model_graph.graph.nodes if n in inside and n.op == "call_module"]
    uses = _uses(model_graph, inside)
    found = []
    for node in calls:
        readers = [reader for reader in node.users if reader in inside]
        if node in boundary or len(readers) != 1 or readers[0].op != "call_module":
            continue
        fold = Fold(str(node.target), str(readers[0].target))
        layer, norm = (model_graph.module.get_submodule(t) for t in (fold.layer, fold.norm))
        if not (_is_plain(layer, norm) and uses[id(layer)] == uses[id(norm)] == 1):
            continue
        computed = node.meta[VALUES][0]
        if isinstance(computed, Tensor) and computed.dim() == _DIMENSIONS[type(layer)]:
            found.append(fold)
    return tuple(found)


def _uses(model_graph: ModelGraph, inside: Collection[fx.Node]) -> Counter[int]:
    """Count who calls a module, alone or inside a larger one, or reads its tensors by name."""
    root = model_graph.module
    held = [n for n in model_graph.graph.nodes if n in inside]
    targets = {str(n.target) for n in held if n.op == "call_module"}
    uses: Counter[int] = Counter()
    for node in held:
        if node.op == "call_module":
            uses.update(id(module) for module in own_modules(root, str(node.target), targets))
        elif node.op == "get_attr":
            uses.update(_owners(root, attribute_at(root, str(node.target))))
    return uses


def _owners(root: nn.Module, held: Tensor | nn.Module) -> list[int]:
    """Return who has a tensor: changing one of them would change what a vertex reads."""
    tensors = [
        (m, t) for m in root.modules() for t in (*m._parameters.values(), *m._buffers.values())
    ]
    return [id(module) for module, tensor in tensors if tensor is held]


def _is_plain(layer: nn.Module, norm: nn.Module) -> bool:
    """Tell whether both are what their types say, without hooks, with running statistics."""
    if _NORMS.get(type(layer)) is not type(norm):
        return False
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    if any(getattr(module, name) for module in (layer, norm) for name in hooks):
        return False
    return norm._buffers["running_var"] is not None  # without statistics it asks its batch
