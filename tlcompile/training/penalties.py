"""L1 and L2 penalties as what they add to gradients. What counts as a weight, and what as a bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tlcompile.training.gradients import Parameters, layer_of

Kind = Literal["weight", "bias", "other"]


@dataclass(frozen=True)
class Penalty:
    """The gradient of l1 * sum |w| + l2 / 2 * sum w^2, added to that of the loss.

    The loss that is told stays that of the data. Unlike decoupled weight decay this passes through
    the optimizer's moments, and is there before gradients are clipped.

    Attributes:
        l1: Coefficient by parameter name.
        l2: Coefficient by parameter name.
    """

    l1: Mapping[str, float]
    l2: Mapping[str, float]

    @torch.no_grad()
    def __call__(self, parameters: Parameters) -> None:
        """Add in place, once a step; a parameter without a gradient is left alone."""
        for coefficient, weights, grads in _alike(self.l1, parameters):
            torch._foreach_add_(grads, torch._foreach_sign(weights), alpha=coefficient)
        for coefficient, weights, grads in _alike(self.l2, parameters):
            torch._foreach_add_(grads, weights, alpha=coefficient)


def _alike(
    coefficients: Mapping[str, float], parameters: Parameters
) -> list[tuple[float, list[Tensor], list[Tensor]]]:
    """Return each coefficient with its parameters and their gradients: one kernel for many."""
    alike: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
    for name, coefficient in coefficients.items():
        parameter = parameters.get(name)
        if parameter is not None and parameter.grad is not None:
            weights, grads = alike.setdefault(coefficient, ([], []))
            weights.append(parameter)
            grads.append(parameter.grad)
    return [(coefficient, *lists) for coefficient, lists in alike.items()]


def kinds_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, Kind]:
    """Tell what each parameter is, as its initialisation does.

    weight: two or more dimensions, and not called bias. bias: called so, in a layer with a weight.
    other: scales and biases of norms, and what a model holds beside its layers in one dimension.
    """
    biases = {name for name in parameters if "bias" in name.rpartition(".")[2]}
    weights = {n for n, p in parameters.items() if n not in biases and p.dim() > 1}
    layers = set(map(layer_of, weights))
    return {
        name: "weight"
        if name in weights
        else "bias"
        if name in biases and layer_of(name) in layers
        else "other"
        for name in parameters
    }
