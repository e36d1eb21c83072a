"""Build new modules with initial weights that depend on the seed and the name alone."""

from __future__ import annotations

import hashlib
from typing import Any

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


def build_module(
    name: str, kwargs: dict[str, Any], *, target: str, seed: int, init: str = "default"
) -> nn.Module:
    """Build torch.<name>(**kwargs) and initialise its weight.

    Args:
        name: Class, dotted from torch.
        kwargs: Its arguments.
        target: Where it goes in the module tree; part of the seed, so order does not matter.
        seed: The recipe's.
        init: `default` (torch's own), or a function of torch.nn.init without its underscore.
    """
    with BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "init", target))
        module: nn.Module = torch_object(name)(**kwargs)
        if init != "default":
            initialise(module, init)
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
