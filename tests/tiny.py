"""Small things to train on: a folder of coloured pictures, networks, recipes in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.yaml_reader import read_recipe_text

COLOURS = ((220, 60, 40), (40, 70, 210), (60, 200, 80))


def make_pictures(
    root: Path, classes: tuple[str, ...] = ("ants", "bees"), count: int = 6, side: int = 24
) -> Path:
    """Write noisy pictures, one colour a class; `root/<class>/<number>.png`."""
    random = np.random.default_rng(0)
    for name, colour in zip(classes, COLOURS, strict=False):
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = random.integers(-40, 40, (side, side, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def make_recipe(**sections: Any) -> Recipe:
    """Return the recipe that these sections are, as if read from a file."""
    sections.setdefault("base", {"model": "digits_net"})  # tests that pass a module ignore it
    root = spell_out(read_recipe_text(to_yaml(sections), "tiny.yaml"))
    return recipe_from(root, (), "tiny")


class TinyNet(nn.Module):
    """Convolution, BatchNorm, pool, dropout, linear: all that training can upset."""

    def __init__(self, width: int = 8, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.fc(self.dropout(self.flatten(self.pool(x))))
