"""A model and a trainer to try rates on: compiled for that alone, saved nowhere."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tlcompile.recipe.load import complete
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import choose_device, exactly
from tlcompile.run.groups import base_rate
from tlcompile.run.objective import objective_of
from tlcompile.run.phases import Phases, models_of
from tlcompile.run.refuse import refuse_other_classes, refuse_other_data, refuse_untrainable
from tlcompile.run.splits import open_splits, refuse_no_data
from tlcompile.training.loop import PhaseTrainer
from tlcompile.training.proof import FreezeProof
from tlcompile.training.state import TrainingState
from tlcompile.zoo.open import open_base


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
    recipe, base = complete(recipe), copy.deepcopy(base)
    device = choose_device(recipe)
    exactly()
    if base is None:
        refuse_other_data(recipe)
    refuse_no_data(recipe)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        opened = open_base(recipe, base)
        splits = open_splits(recipe, opened.preprocessing.channels, _silent, opened.categories)
        splits = replace(splits, val=None, test=None)
        classes = splits.classes
        models = models_of(recipe, opened, len(classes), base)
        models[0].to(device)
        refuse_other_classes(recipe, models[0], classes)
        refuse_untrainable(recipe.phases()[phase], models[phase], len(classes), swept=True)
        objective = objective_of(recipe, classes, splits.train, device)
        state = TrainingState(phase=phase)
        phases = Phases(
            recipe, scratch, opened, splits, models, objective, device, {}, _silent, state
        )
        proof = FreezeProof.take(models[phase])
        with phases.open(phase, proof) as trainer:
            yield Trial(trainer, base_rate(recipe.phases()[phase], models[phase]))


def _silent(_line: str) -> None:
    """Say nothing: this is no run."""
