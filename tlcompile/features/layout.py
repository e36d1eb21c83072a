"""The order of dimensions in memory: a row keeps the one that it was computed in.

A tensor that was live in a permuted layout (ConvNeXt's channels-last) and is stored contiguous
gives other bits in the suffix. torch.cat and index_select forget most layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tlcompile.store.blocks import memory_order


def in_order(order: Sequence[int], change: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Change rows as they lie in memory, and give their dimensions back their places."""
    return unpermuted(change(*(tensor.permute(*order) for tensor in rows)), order)


def unpermuted(stored: Tensor, order: Sequence[int]) -> Tensor:
    """Give rows that were stored in an order of their dimensions those dimensions back."""
    return stored.permute([order.index(d) for d in range(len(order))])


def packed(rows: Tensor) -> Tensor:
    """Copy rows into storage of their own; views of one storage (ShuffleNet's chunk) come apart."""
    return in_order(memory_order(rows), lambda t: t.contiguous().clone(), rows)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Put rows behind each other."""
    if len(parts) == 1:
        return parts[0]
    order = memory_order(parts[0])
    return in_order(order, lambda *tensors: torch.cat(tensors), *parts)


def taken(rows: Tensor, index: Tensor) -> Tensor:
    """Take rows by index."""
    return in_order(memory_order(rows), lambda t: t.index_select(0, index), rows)
