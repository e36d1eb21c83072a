"""Networks in which two vertices share a module, or two modules a weight."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Twice(nn.Module):
    """One module on two vertices, `mid` and `mid_1`; the second reads what `first` is wide."""

    def __init__(self, mid: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.mid = nn.Linear(4, 4) if mid is None else mid
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1)[:, :4]
        return self.last(self.mid(self.first(self.mid(x))))


class Tied(nn.Module):
    """Two modules with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)
        self.last.weight = self.first.weight

    def forward(self, x: Tensor) -> Any:
        return self.last(self.first(x.flatten(1)[:, :4]))
