"""What a wrapped function or a leaf writes into: found by running, and kept apart by a copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from graph.tiny import recipe
from tlcompile.compiler import compile_recipe
from tlcompile.errors.graph import NotTraceableError
from tlcompile.model.compiled import CompiledModel


def add_in_place(value: Tensor, other: Tensor) -> Tensor:
    if value.dim() != 4:  # a question about values, so fx cannot look inside
        raise ValueError(value.dim())
    value[:, 1:] += other[:, 1:]
    return value


def says_nothing(value: Tensor) -> Tensor:
    value.mul_(2)
    return value.sum()


fx.wrap("add_in_place")
fx.wrap("says_nothing")


class Writes(nn.Module):
    """As torchvision's MViT v2 does: the result of a writing function is not used."""

    def __init__(self, view: bool = False, silent: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 5)
        self.view, self.silent = view, silent

    def forward(self, x: Tensor) -> Any:
        one, other = self.a(x), self.b(x)
        part = one[:, :2]
        add_in_place(one, other)
        if self.silent:
            says_nothing(one)
        late = part.sum() if self.view else 0
        return self.fc(one.mean((2, 3))) + late


def compiled(freeze: str, **options: bool) -> tuple[nn.Module, CompiledModel]:
    base = Writes(**options).eval()
    return base, compile_recipe(recipe(freeze=freeze, head="keep"), base=base).eval()


@pytest.mark.parametrize("freeze", ["none", "a", "add_in_place", "mean"])
def test_what_a_function_writes_is_read_afterwards(freeze: str) -> None:
    base, model = compiled(freeze)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x), base(x))
    crossing = model.prefix(x)
    before = [value.clone() for value in crossing]
    assert torch.equal(model.suffix(*crossing), base(x))
    assert all(torch.equal(a, b) for a, b in zip(crossing, before, strict=True))


def test_a_view_that_is_read_later_is_refused() -> None:
    with pytest.raises(NotTraceableError, match="getitem"):
        compiled("none", view=True)


def test_a_function_that_returns_something_else_is_refused() -> None:
    with pytest.raises(NotTraceableError, match=r"'says_nothing' writes into .* returns something"):
        compiled("none", silent=True)
