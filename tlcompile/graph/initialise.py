"""Build new modules with initial weights that depend on the seed and the name alone."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import nn

from tlcompile.errors.layers import InitRefusedError
from tlcompile.graph import functions, own_modules
from tlcompile.recipe.initialisers import Init, call_of_init
from tlcompile.zoo.building import BUILDING


def derived_seed(seed: int, *words: object) -> int:
    """Return a seed for one use of randomness: equal words, equal numbers, on every machine.

    Args:
        seed: The recipe's.
        words: What it is for: a layer's name, an epoch, a sample.
    """
    text = "\x00".join(map(str, (seed, *words))).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "little")


_OURS = {"own": functions, "own_modules": own_modules}


def torch_object(name: str) -> Any:
    """Return torch.<name>, or `own.<function>` of functions.py, `own_modules.<Class>`.

    The name comes from the vocabulary in recipe/layers, never from a recipe.
    """
    first, *rest = name.split(".")
    found: Any = _OURS[first] if first in _OURS else getattr(torch, first)
    for part in rest:
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
        weight_init: Of weights with two or more dimensions.
        bias_init: Value of the biases; None: torch's own by `default`, else 0.
        factory: A plug-in's class, instead of `name`.
    """

    name: str
    kwargs: dict[str, Any]
    target: str
    seed: int
    weight_init: Init = "default"
    bias_init: float | None = None
    factory: Callable[..., Any] | None = None

    @property
    def init(self) -> str:
        """By which initialiser, in words."""
        return describe(self.weight_init)

    def __call__(self, old: nn.Module | None = None) -> nn.Module:  # noqa: ARG002
        """Build it; nothing of the old one is used."""
        with BUILDING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(self.seed, "init", self.target))
            return self._built()

    def on_meta(self) -> nn.Module:
        """Build it without memory; torch refuses here what it would refuse later.

        Raises:
            InitRefusedError: The initialiser does not fit the weight.
            ValueError, RuntimeError, AssertionError: Torch's own, of settings that do not fit.
        """
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return self._built()

    def _built(self) -> nn.Module:
        module: nn.Module = (self.factory or torch_object(self.name))(**self.kwargs)
        initialise(module, self.weight_init, self.bias_init)
        return module


def initialise(module: nn.Module, init: Init, bias: float | None = None) -> None:
    """Fill weights with two or more dimensions by torch.nn.init; biases with a number.

    Scales of norms, which have one dimension and are no bias, keep torch's own.

    Args:
        module: All its parameters are looked at.
        init: As the recipe says; `default` leaves weights as torch made them.
        bias: None: biases as torch made them by `default`, else 0.

    Raises:
        InitRefusedError: The initialiser does not fit the shape of a weight.
    """
    called = call_of_init(init)
    if bias is None and called is not None:
        bias = 0.0
    for name, parameter in module.named_parameters():
        if "bias" in name.rpartition(".")[2]:
            if bias is not None:
                nn.init.constant_(parameter, bias)
        elif called is not None and parameter.dim() > 1:
            _fill(parameter, init, *called)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        module._fill_padding_idx_with_zero()


def _fill(parameter: nn.Parameter, init: Init, name: str, options: dict[str, Any]) -> None:
    try:
        getattr(nn.init, name)(parameter, **options)
    except (ValueError, RuntimeError) as cause:
        raise InitRefusedError(
            init=describe(init), shape=tuple(parameter.shape), reason=str(cause).splitlines()[0]
        ) from cause


def describe(init: Init) -> str:
    """Word an initialiser by the parameters that differ from torch.nn.init's own."""
    name = init if isinstance(init, str) else init.name
    _, options = call_of_init(init) or ("", {})
    function = getattr(nn.init, f"{name}_", None)
    known = inspect.signature(function).parameters if function is not None else {}
    shown = [f"{k}={v}" for k, v in options.items() if k in known and known[k].default != v]
    return f"{name}({', '.join(shown)})" if shown else name
