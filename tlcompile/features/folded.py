"""Copy what the frozen prefix uses, with its norms folded and its matrices rounded.

The model's own tensors never change; the copy holds the prefix' modules and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tlcompile.graph.fold import Fold
from tlcompile.graph.shapes import attribute_at
from tlcompile.model.compiled import CompiledModel

# Where nearly all multiplications are. Norms, tables of positions and scales stay fp32: casting
# them gains nothing that was measurable, and costs a vision transformer half of its precision.
_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


def copy_prefix(model: CompiledModel) -> nn.Module:
    """Copy the modules and tensors of a model's prefix into a bare tree, at the same places."""
    root, memo = nn.Module(), dict[int, Any]()  # one memo: what is shared stays shared
    for target in dict.fromkeys(t for one in model.boundary for t in one.targets):
        _place(root, target, copy.deepcopy(attribute_at(model.tree, target), memo))
    return root.eval().requires_grad_(False)


def _place(root: nn.Module, target: str, held: Tensor | nn.Module) -> None:
    *path, name = target.split(".")
    owner = root
    for step in path:
        if step not in owner._modules:
            owner.add_module(step, nn.Module())
        owner = owner.get_submodule(step)
    if isinstance(held, nn.Module):
        owner.add_module(name, held)
    elif isinstance(held, nn.Parameter):
        owner.register_parameter(name, held)
    else:
        owner.register_buffer(name, held)


def fold_norms(root: nn.Module, folds: Iterable[Fold]) -> None:
    """Let each layer compute what it and its norm computed; the norm then does nothing."""
    for fold in folds:
        _fold(root.get_submodule(fold.layer), root.get_submodule(fold.norm))
        _place(root, fold.norm, nn.Identity())


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """Scale a layer's weight and shift its bias, in float64, rounded once."""
    weight, before = _double(layer, "weight"), _double(layer, "bias", 0.0)
    mean, var = _double(norm, "running_mean"), _double(norm, "running_var")
    eps: Any = norm.eps
    scale = _double(norm, "weight", 1.0) * (var + eps).rsqrt()
    bias = _double(norm, "bias", 0.0) + (before - mean) * scale
    each_row = scale.view(-1, *[1] * (weight.dim() - 1))
    own = layer._parameters["weight"]
    assert own is not None
    # New parameters: a tied one belongs to another layer, too.
    layer.weight = nn.Parameter((weight * each_row).to(own.dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(own.dtype), requires_grad=False)


def _double(module: nn.Module, name: str, otherwise: float = 0.0) -> Tensor:
    found: Tensor | None = getattr(module, name)
    return torch.tensor(otherwise, dtype=torch.double) if found is None else found.double()


def round_matrices(root: nn.Module, dtype: torch.dtype) -> None:
    """Store the weights of convolutions, linear layers and attentions in a shorter dtype."""
    for module in root.modules():
        if isinstance(module, _MATRICES):
            for parameter in module._parameters.values():
                if parameter is not None and parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)


def channels_last(root: nn.Module) -> bool:
    """Put the channels of 2d convolutions last in memory; tell whether there are any."""
    found = [module for module in root.modules() if isinstance(module, nn.Conv2d)]
    for module in found:
        module.to(memory_format=torch.channels_last)
    return bool(found)
