"""A small data set, a small network, and the addresses of the rows that a recipe wants.

The tables of cases are filled by key_images.py, key_networks.py and key_machine.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_opened
from tlcompile.data.digests import digests_of
from tlcompile.features.fingerprint import describe
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.parts import parts_of
from tlcompile.run.splits import open_splits
from tlcompile.store.about import About
from tlcompile.zoo.open import open_base
from tlcompile.zoo.preprocessing import Preprocessing

CPU = torch.device("cpu")
FREEZE = "conv2"
OWN = {"model": "digits_net", "size": 8}  # the model is only a name where a module is given
PLAIN = Preprocessing(10, 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", 3)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a run asks the store for: rows of sets."""

    abouts: tuple[About, ...]
    rows: frozenset[bytes] = frozenset({b"the same images"})

    @property
    def addresses(self) -> set[tuple[str, bytes]]:
        return {(about.key, row) for about in self.abouts for row in self.rows}


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a case may use: a folder of its own, and patches that are taken back."""

    folder: Path
    patch: pytest.MonkeyPatch


Pair = tuple[Wanted, Wanted]  # of a run, and of another one after an edit
Case = Callable[[Ground], Pair]
MISS: dict[str, Case] = {}  # the other run must find none of the rows of the first
HIT: dict[str, Case] = {}  # it must find all


def case(table: dict[str, Case], name: str) -> Callable[[Case], Case]:
    """Add a case to a table."""

    def add(made: Case) -> Case:
        assert name not in table, name
        table[name] = made
        return made

    return add


class Net(nn.Module):
    """Own module, with all kinds of tensors in front of the freeze point."""

    def __init__(self, act: nn.Module | None = None, *, by: float = 2.0, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, stride=stride)
        self.bn1 = nn.BatchNorm2d(4)
        self.act = act or nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(4, 2)
        self.register_buffer("kept", torch.ones(4, 1, 1))
        self.register_buffer("passing", torch.ones(4, 1, 1), persistent=False)
        self.plain = torch.ones(4, 1, 1)
        self.by = by
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x))) * self.kept + self.passing - self.plain
        return self.fc(self.head(self.conv2(x * self.by)))


def flip_bit(tensor: Tensor) -> None:
    """Change the last bit of one value."""
    tensor.detach().reshape(-1).view(torch.int32)[:1].bitwise_xor_(1)


def make_bitmaps(root: Path, side: int = 10) -> Path:
    """Write pictures whose files keep their size when a pixel changes; `root/<class>/<n>.bmp`."""
    random = np.random.default_rng(0)
    for name in ("ants", "bees"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixels = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.bmp")
    return root


def row_keys_of(folder: Path, split: str | None = None, **sections: Any) -> frozenset[bytes]:
    """Return the keys of the rows that a recipe over a folder wants, of one split or of all."""
    recipe = make_recipe(data={"folder": str(folder), **sections.pop("data", {})}, **sections)
    splits = open_splits(recipe, 3, lambda _line: None).named()
    parts = parts_of(recipe, splits, recipe.base.size or 0)
    chosen = [part for part in parts if split in (part.name, None)]
    keys = [part.keys(digests_of(part.samples, workers=2)) for part in chosen]
    return frozenset(row.tobytes() for row in np.concatenate(keys))


def compiled(net: nn.Module, **sections: Any) -> tuple[CompiledModel, Preprocessing, Any]:
    """Compile a recipe as `train` does, for two classes."""
    recipe = make_recipe(**{"base": OWN, "freeze": FREEZE, **sections})
    opened = open_base(recipe, net)
    preprocessing = opened.preprocessing
    return compile_opened(recipe, opened, 2), preprocessing, recipe.features


def wanted(net: nn.Module | None = None, **sections: Any) -> Wanted:
    """Return the sets of a recipe; the images are always the same."""
    if net is None and not sections:
        return plain_sets()
    model, preprocessing, features = compiled(net or Net(), **sections)
    return sets_of(model, preprocessing, features.batch_size, features.precision)


@cache
def plain_model() -> CompiledModel:
    return compiled(Net())[0]


@cache
def plain_sets() -> Wanted:
    model, preprocessing, features = compiled(Net())
    return sets_of(model, preprocessing, features.batch_size, features.precision)


def sets_of(
    model: CompiledModel,
    preprocessing: Preprocessing,
    chunk_size: int = 32,
    precision: str = "exact",
    device: torch.device = CPU,
) -> Wanted:
    return Wanted(
        describe(
            model,
            preprocessing=preprocessing,
            chunk_size=chunk_size,
            precision=precision,
            device=device,
        )
    )


def edited(edit: Callable[[Net], object]) -> Pair:
    """Compare the network with an edited one."""
    net = Net()
    edit(net)
    return wanted(), wanted(net)
