"""Clip or renormalise gradients between backward and step: of the model, a layer, or a parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Parameters = Mapping[str, nn.Parameter]
Hook = Callable[[Parameters], None]  # of the step: before it, or after it
Per = Literal["model", "layer", "parameter"]


@dataclass(frozen=True)
class ClipValue:
    """Clip every number of every gradient to [-limit, limit]."""

    limit: float

    def __call__(self, parameters: Parameters) -> None:
        """Clip in place."""
        nn.utils.clip_grad_value_(parameters.values(), self.limit)


@dataclass(frozen=True)
class ClipNorm:
    """Scale gradients down to an L2 norm; shorter ones stay to the bit.

    Attributes:
        limit: Largest norm.
        per: Whose norm: of all gradients together, of each layer's, or of each parameter's.
    """

    limit: float
    per: Per = "model"

    def __call__(self, parameters: Parameters) -> None:
        """Scale in place; nothing waits for the device."""
        for together in _groups(parameters, self.per):
            nn.utils.clip_grad_norm_(together, self.limit)


@dataclass(frozen=True)
class Renormalise:
    """Divide gradients by their L2 norm, whatever it is; zero stays zero.

    Attributes:
        per: Whose norm: of all gradients together, of each layer's, or of each parameter's.
    """

    per: Per

    def __call__(self, parameters: Parameters) -> None:
        """Divide in place; nothing waits for the device."""
        for together in _groups(parameters, self.per):
            grads: list[Tensor] = [p.grad for p in together if p.grad is not None]
            norm = nn.utils.get_total_norm(grads)
            torch._foreach_div_(grads, norm + (norm == 0))


def _groups(parameters: Parameters, per: Per) -> Iterable[list[nn.Parameter]]:
    """Return the parameters with a gradient, those together whose norm is one."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            key = {"model": "", "layer": layer_of(name), "parameter": name}[per]
            groups.setdefault(key, []).append(parameter)
    return groups.values()


def layer_of(name: str) -> str:
    """Return the layer of a parameter: the module that holds it, by name."""
    return name.rpartition(".")[0]
