"""Three small bases in words: a chain, a residual block, two branches. Images are 16x16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tlcompile.graph.model_graph import ModelGraph, graph_of
from tlcompile.graph.shapes import record_shapes
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.yaml_reader import read_recipe_text

SIDE = 16


class Chain(nn.Module):
    """conv - bn - relu - pool - flatten - drop - fc; ReLU works in place, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.pool(self.relu(self.bn(self.conv(x))))
        return self.fc(self.drop(torch.flatten(x, 1)))


class Block(nn.Module):
    """A residual block that keeps its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Any:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x
        return self.relu(out)


class Residual(nn.Module):
    """A stem, two residual blocks and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(Block(8), Block(8))
        self.down = nn.Conv2d(8, 12, 1, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Any:
        x = self.down(self.layer1(self.stem(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Branches(nn.Module):
    """Two branches side by side, concatenated, and a classifier that ends in a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.left = nn.Conv2d(6, 4, 1)
        self.right = nn.Conv2d(6, 8, 3, padding=1)
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(12, 10, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = torch.cat([self.left(x), self.right(x)], 1)
        return torch.flatten(self.classifier(x), 1)


TINY: dict[str, Callable[[], nn.Module]] = {
    "chain": Chain,
    "residual": Residual,
    "branches": Branches,
}


def recipe(**sections: Any) -> Recipe:
    """Build a recipe from plain sections; its base stands for a module given in Python."""
    freeze = sections.get("freeze")
    if isinstance(freeze, str):
        sections["freeze"] = {"upto": freeze}
    return Recipe.model_validate({"base": {"model": "tiny", "size": SIDE}, **sections})


def recipe_of(text: str) -> Recipe:
    """Build a recipe from YAML, with places for errors."""
    return recipe_from(spell_out(read_recipe_text(text, "tiny.yaml")), (), "tiny")


def graph_with_shapes(module: nn.Module, side: int = SIDE) -> ModelGraph:
    """Return a module's graph with every shape known."""
    model_graph = graph_of(module, type(module).__name__, {"x": (3, side, side)})
    record_shapes(model_graph)
    return model_graph


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move norms, running statistics and layer scales far from 0 and 1, so that nothing hides."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in module.named_parameters():
            owner = module.get_submodule(name.rpartition(".")[0])
            if "Norm" in type(owner).__name__ or "layer_scale" in name:
                uniform(tensor, *((-0.3, 0.3) if name.endswith("bias") else (0.5, 1.5)))
            elif tensor.dim() > 1:
                bound = float((3 / tensor[0].numel()) ** 0.5)
                uniform(tensor, -bound, bound)
            else:
                uniform(tensor, -0.1, 0.1)
        for name, tensor in module.named_buffers():
            if name.endswith("running_mean"):
                uniform(tensor, -0.3, 0.3)
            elif name.endswith("running_var"):
                uniform(tensor, 0.5, 2.0)
    return module
