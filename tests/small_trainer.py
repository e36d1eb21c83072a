"""Small compiled models, images and labels to train on features of."""

from __future__ import annotations

from typing import Any

import torch
from graph.tiny import recipe_of, shake
from tiny import TinyNet
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel

CPU = torch.device("cpu")


def compiled(
    freeze: str = "bn1", *, base: nn.Module | None = None, more: str = ""
) -> CompiledModel:
    text = f"base: {{model: own, size: 8}}\nfreeze: {freeze}\n{more}"
    torch.manual_seed(0)
    return compile_recipe(recipe_of(text), base=base or shake(TinyNet()), num_classes=3)


_RANDOM = torch.Generator().manual_seed(1)
IMAGES, LABELS = torch.randn(11, 3, 8, 8, generator=_RANDOM), torch.arange(11) % 3
ONE, OTHER = (torch.randn(6, width, generator=_RANDOM) for width in (4, 2))


def loader(size: int = 5) -> list[tuple[Tensor, Tensor]]:
    return list(zip(IMAGES.split(size), LABELS.split(size), strict=True))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


class Two(nn.Module):
    """Two inputs, two outputs; one input is also read by what trains."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.top, self.side = nn.Linear(4, 5), nn.Linear(7, 3), nn.Linear(5, 2)

    def forward(self, one: Tensor, other: Tensor) -> Any:
        low = torch.tanh(self.low(one))
        return self.top(torch.cat([low, other], 1)), self.side(low)


def two() -> CompiledModel:
    text = "base: {model: own}\ninputs: {one: {shape: [4]}, other: {shape: [2]}}\n"
    return compile_recipe(
        recipe_of(text + "freeze: tanh\nhead: keep\noutputs: [top, side]\n"), base=Two()
    )
