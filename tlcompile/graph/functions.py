"""Functions that added vertices call, where torch has no single one. Pure, out of place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def add(inputs: Sequence[Tensor]) -> Tensor:
    """Return the sum, from left to right."""
    return reduce(torch.add, inputs)


def subtract(inputs: Sequence[Tensor]) -> Tensor:
    """Return the first minus the second."""
    first, second = inputs
    return first - second


def multiply(inputs: Sequence[Tensor]) -> Tensor:
    """Return the product, from left to right."""
    return reduce(torch.mul, inputs)


def average(inputs: Sequence[Tensor]) -> Tensor:
    """Return the mean of the inputs."""
    return reduce(torch.add, inputs) / len(inputs)


def maximum(inputs: Sequence[Tensor]) -> Tensor:
    """Return the larger value at each place."""
    return reduce(torch.maximum, inputs)


def scale(value: Tensor, by: float) -> Tensor:
    """Return the value times a constant."""
    return value * by


def shift(value: Tensor, by: float) -> Tensor:
    """Return the value plus a constant."""
    return value + by


def reshape(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Return each sample in another shape."""
    return value.reshape(value.size(0), *shape)
