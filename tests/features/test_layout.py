"""Rows keep the order of their dimensions in memory, also where torch's own functions forget it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tlcompile.features.layout import joined, packed, taken, unpermuted
from tlcompile.store.blocks import memory_order

ORDERS = [(0, 2, 1), (0, 1, 2), (0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3)]


def rows_in(order: tuple[int, ...]) -> Tensor:
    return unpermuted(torch.randn((6, 3, 5, 4)[: len(order)]), order)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda rows: joined([rows[:4], rows[4:]]), lambda rows: rows),
        (lambda rows: taken(rows, torch.tensor([5, 0, 2])), lambda rows: rows[[5, 0, 2]]),
        (packed, lambda rows: rows),
    ],
    ids=["joined", "taken", "packed"],
)
def test_the_order_in_memory_stays(
    order: tuple[int, ...],
    change: Callable[[Tensor], Tensor],
    wanted: Callable[[Tensor], Tensor],
) -> None:
    rows = rows_in(order)
    changed = change(rows)
    assert torch.equal(changed, wanted(rows))
    assert memory_order(changed) == memory_order(rows) == order
    assert changed.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()


def test_torch_forgets_some_of_them() -> None:
    """Or the test above shows nothing."""
    rows = rows_in((0, 2, 1))
    assert memory_order(torch.cat([rows, rows])) != (0, 2, 1)
    assert memory_order(rows.index_select(0, torch.tensor([1, 0]))) != (0, 2, 1)
