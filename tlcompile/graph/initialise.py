"""Build new modules with initial weights that depend on the seed and the name alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import nn

from tlcompile.zoo.building import BUILDING

_KAIMING = {"nonlinearity": "relu"}


def derived_seed(seed: int, *words: object) -> int:
    """Return a seed for one use of randomness: equal words, equal numbers, on every machine.

    Args:
        seed: The recipe's.
        words: What it is for: a layer's name, an epoch, a sample.
    """
    text = "\x00".join(map(str, (seed, *words))).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little")


def torch_object(name: str) -> Any:
    """Return torch.<name>; the name comes from the vocabulary in recipe/layers.py."""
    found: Any = torch
    for part in name.split("."):
        found = getattr(found, part)
    return found


class Builder(Protocol):
    """Builds one new module of the tree, with real and initialised weights."""

    @property
    def init(self) -> str:
        """By which initialiser, for the tensor report."""

    def __call__(self, old: nn.Module | None) -> nn.Module:
        """Build it; `old` is the base's own module at this place, with its weights, or None."""


@final
@dataclass(frozen=True)
class NewModule:
    """Builds torch.<name>(**kwargs) and initialises its weight.

    Attributes:
        name: Class, dotted from torch.
        kwargs: Its arguments.
        target: Where it goes in the module tree; part of the seed, so order does not matter.
        seed: The recipe's.
        init: `default` (torch's own), or a function of torch.nn.init without its underscore.
    """

    name: str
    kwargs: dict[str, Any]
    target: str
    seed: int
    init: str = "default"

    def __call__(self, old: nn.Module | None = None) -> nn.Module:  # noqa: ARG002
        """Build it; nothing of the old one is used."""
        with BUILDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, "init", self.target))
            module: nn.Module = torch_object(self.name)(**self.kwargs)
            if self.init != "default":
                initialise(module, self.init)
        return module


def initialise(module: nn.Module, init: str) -> None:
    """Fill every weight with two or more dimensions by torch.nn.init.<init>_, and biases with 0."""
    function = getattr(nn.init, f"{init}_")
    options: dict[str, Any] = _KAIMING if init.startswith("kaiming") else {}
    if init in ("normal", "trunc_normal"):
        options = {"std": 0.02}
    for parameter in module.parameters():
        if parameter.dim() > 1:
            function(parameter, **options)
        else:
            nn.init.zeros_(parameter)
