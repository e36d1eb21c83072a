"""Constraints that hold after every step: norms of units, and signs. Only what trains is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlcompile.training.gradients import Parameters
from tlcompile.training.sharding import is_cut, like, whole

Rule = Callable[[Tensor, "Units"], None]


@dataclass(frozen=True)
class Units:
    """Which numbers of a tensor are the incoming weights of one unit, and have one norm.

    Attributes:
        dims: Dimensions that a norm is taken over.
        shape: Seen in this shape; None: in its own.
    """

    dims: tuple[int, ...]
    shape: tuple[int, ...] | None = None

    def seen(self, tensor: Tensor) -> Tensor:
        """Return a view of the tensor's own memory in which `dims` count."""
        return tensor if self.shape is None else tensor.view(self.shape)


def units_of(layer: nn.Module, parameter: nn.Parameter) -> Units:
    """Return the units of a parameter: each output feature or channel with all that feeds it.

    The fan-in is every dimension but the first, (out, in, ...); a transposed convolution has its
    channels the other way round, (in, out / groups, ...). One dimension, a bias, is one unit.
    """
    dims = parameter.dim()
    if dims < 2:
        return Units(tuple(range(dims)))
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        inputs, outputs, *kernel = parameter.shape
        groups = layer.groups
        seen = (groups, inputs // groups, outputs, *kernel)
        return Units((1, *range(3, len(seen))), seen)
    return Units(tuple(range(1, dims)))


@dataclass(frozen=True)
class NonNegative:
    """No number below zero."""

    def __call__(self, tensor: Tensor, units: Units) -> None:  # noqa: ARG002
        """Set negative numbers to zero, in place."""
        tensor.clamp_(min=0)


@dataclass(frozen=True)
class NormBetween:
    """Bring the L2 norm of every unit between two bounds; what lies between them stays to the bit.

    max-norm: from 0 to a limit. unit-norm: from 1 to 1. A unit of zeros has no direction and stays.

    Attributes:
        least: Smallest norm.
        most: Largest norm.
        rate: How much of the way to the bound is gone in each step, above 0, at most 1.
    """

    least: float
    most: float
    rate: float = 1.0

    def __call__(self, tensor: Tensor, units: Units) -> None:
        """Scale every unit, in place."""
        seen = units.seen(tensor)
        norm = torch.linalg.vector_norm(seen, dim=units.dims, keepdim=True)
        wanted = norm + self.rate * (norm.clamp(self.least, self.most) - norm)
        seen.mul_(torch.where(norm > 0, wanted / norm, 1.0))


@dataclass(frozen=True)
class Constraint:
    """Rules for parameters, by name.

    Attributes:
        rules: Applied in this order.
        units: Of each parameter that they hold for.
    """

    rules: tuple[Rule, ...]
    units: Mapping[str, Units]

    @torch.no_grad()
    def __call__(self, parameters: Parameters) -> None:
        """Make the rules hold, in place."""
        for name, units in self.units.items():
            parameter = parameters.get(name)
            if parameter is not None:
                tensor = whole(parameter)  # a unit may lie on two ranks
                for rule in self.rules:
                    rule(tensor, units)
                if is_cut(parameter):
                    parameter.copy_(like(parameter, tensor))
