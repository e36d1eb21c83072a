"""Functions that added vertices call, where torch has no single one. Pure, out of place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, torch's own name for it


def on_a_copy(method: str, written: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return what a method that writes in place would make of a tensor, which stays as it is."""
    made: Tensor = getattr(written.clone(), method)(*args, **kwargs)
    return made


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


def repeat(value: Tensor, times: int) -> Tensor:
    """Return the features (N, features) at each of so many steps: (N, times, features)."""
    return value.unsqueeze(1).expand(-1, times, -1)


def repeat_like(value: Tensor, sequence: Tensor) -> Tensor:
    """Return the features (N, features) at each step of a sequence (N, length, ...)."""
    return repeat(value, sequence.size(1))


def unstack(value: Tensor, index: int, num: int) -> Tensor:
    """Return one of `num` batches that lie below each other.

    Raises:
        ValueError: They are not `num` batches of one size.
    """
    if value.size(0) % num:
        raise ValueError(f"a batch of {value.size(0)} is not {num} batches of one size")
    return value.chunk(num, 0)[index]


def pairwise_distance(one: Tensor, other: Tensor, p: float, eps: float) -> Tensor:
    """Return the distance of two samples as (N, 1)."""
    return F.pairwise_distance(one.flatten(1), other.flatten(1), p=p, eps=eps, keepdim=True)


def dot_product(one: Tensor, other: Tensor) -> Tensor:
    """Return the dot product of two samples as (N, 1)."""
    return (one * other).flatten(1).sum(1, keepdim=True)


def dot_product_attention(inputs: Sequence[Tensor], scale: float | None) -> Tensor:
    """Return what the query finds: query, key and value, or one input that is all three."""
    query, key, value = inputs if len(inputs) == 3 else (inputs[0],) * 3
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def global_pool(value: Tensor, kind: str, norm_type: float, tokens: bool) -> Tensor:
    """Return one value a channel, (N, channels, 1, ...); for tokens one a feature, (N, features)."""
    dims = (1,) if tokens else tuple(range(2, value.dim()))
    match kind:
        case "avg":
            return value.mean(dims, keepdim=not tokens)
        case "max":
            return value.amax(dims, keepdim=not tokens)
        case "sum":
            return value.sum(dims, keepdim=not tokens)
        case _:
            norm: Tensor = torch.linalg.vector_norm(value, norm_type, dims, keepdim=not tokens)
            return norm
