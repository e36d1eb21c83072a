"""A model and a trainer to try rates on: compiled for that alone, saved nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tlcompile.recipe.load import complete
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import choose_device
from tlcompile.run.groups import base_rate
from tlcompile.run.opening import open_run
from tlcompile.training.loop import PhaseTrainer
from tlcompile.training.proof import FreezeProof


@dataclass(frozen=True)
class Trial:
    """What rates are tried on.

    Attributes:
        trainer: Of a phase, at its beginning.
        rate: Its learning rate as the recipe has it.
    """

    trainer: PhaseTrainer
    rate: float


@contextlib.contextmanager
def open_trial(
    recipe: Recipe, scratch: Path, phase: int, base: nn.Module | None
) -> Iterator[Trial]:
    """Compile a recipe and make one of its phases ready; the caller's random numbers stay.

    Features of the frozen part come from the store, and go there: they are what a run needs too.

    Args:
        recipe: What the user asked for.
        scratch: An empty folder, in place of a run's.
        phase: Which one, from 0.
        base: Your own module instead of the recipe's base; it is copied.
    """
    recipe, device = complete(recipe), choose_device(recipe)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        phases = open_run(recipe, scratch, base=base, swept=True, say=_silent)
        phases.splits = replace(phases.splits, val=None, test=None)
        phases.state.phase = phase
        model = phases.models[phase]
        with phases.open(phase, FreezeProof.take(model)) as trainer:
            yield Trial(trainer, base_rate(recipe.phases()[phase], model))


def _silent(_line: str) -> None:
    """Say nothing: this is no run."""
