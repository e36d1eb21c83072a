"""Builders of resized layers: the base's own type and settings, other widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from tlcompile.graph.initialise import derived_seed, describe, initialise
from tlcompile.graph.widths import Widths, keep_overlap, with_widths
from tlcompile.recipe.initialisers import Init
from tlcompile.zoo.building import BUILDING


@final
@dataclass(frozen=True, eq=False)
class Resized:
    """Builds the base's module again with other widths.

    Attributes:
        target: Its place in the module tree; part of the seed.
        seed: The recipe's.
        widths: The new ones.
        initialiser: Of its weight.
        kept: For each output and each input the base's that it was, or -1; None: nothing is kept.
    """

    target: str
    seed: int
    widths: Widths
    initialiser: Init
    kept: tuple[torch.Tensor, torch.Tensor] | None

    @property
    def init(self) -> str:
        """By which initialiser, for the tensor report."""
        return describe(self.initialiser) + (", overlap kept" if self.kept else "")

    def on_meta(self, old: nn.Module) -> nn.Module:
        """Build it without memory.

        Raises:
            InitRefusedError: The initialiser does not fit the weight.
        """
        made = with_widths(old, self.widths)
        with torch.random.fork_rng(devices=[]):
            initialise(made, self.initialiser)
        return made

    def __call__(self, old: nn.Module | None) -> nn.Module:
        """Build it from the base's own module."""
        assert old is not None
        made = with_widths(old, self.widths)
        children, made._modules = made._modules, {}  # a region's norm and activation are vertices
        with BUILDING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(self.seed, "init", self.target))
            made.reset_parameters()  # type: ignore[operator]
            initialise(made, self.initialiser)
        if self.kept:
            keep_overlap(made, old, *self.kept)
        made._modules = children
        return made


@final
@dataclass(frozen=True, eq=False)
class ResizedParameter:
    """Builds a bare parameter (a layer scale) again with another width on one axis.

    torch has no default for a bare parameter: new entries are the mean of the base's.

    Attributes:
        axis: Of the width.
        width: The new one.
        kept: For each entry the base's that it was, or -1; None: nothing is kept.
    """

    axis: int
    width: int
    kept: torch.Tensor | None

    @property
    def init(self) -> str:
        """By which initialiser, for the tensor report."""
        return "mean of the base's" + ("" if self.kept is None else ", overlap kept")

    def parameter(self, old: torch.Tensor) -> torch.Tensor:
        """Build it from the base's own."""
        made = old.detach().mean(self.axis, keepdim=True)
        made = made.repeat_interleave(self.width, self.axis)
        if self.kept is not None:
            there, base = self.kept >= 0, old.detach().transpose(0, self.axis)
            made.transpose(0, self.axis)[there] = base[self.kept[there]]
        return nn.Parameter(made) if isinstance(old, nn.Parameter) else made
