"""Open the base that a recipe names: the one door to the zoo."""

from __future__ import annotations

import torch

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.graph import NotYetError
from tlcompile.errors.weights import RandomFrozenError, UnknownModelError
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo import bundled
from tlcompile.zoo.base import BaseModel
from tlcompile.zoo.timm import PREFIX, open_timm, timm_names
from tlcompile.zoo.torchvision import model_names, open_torchvision


def all_model_names(like: str = "") -> list[str]:
    """Return every name that `base.model` takes; timm's where `like` begins with `timm/`.

    timm's 1,400 names take seconds to collect, and would hide the others.
    """
    return timm_names() if like.startswith(PREFIX) else [bundled.NAME, *model_names()]


def open_base(recipe: Recipe, *, load: bool) -> BaseModel:
    """Open the base of a recipe.

    Args:
        recipe: Its `base`, `freeze` and `fine_tune.seed` are read.
        load: Whether real weights are wanted; without, nothing is downloaded or read.

    Raises:
        UnknownModelError: The zoo has no such model.
        RandomFrozenError: No weights, and something is frozen.
        WeightsError: The weights do not fit or cannot be had.
        NotYetError: It names a run.
    """
    base = recipe.base
    name = base.model or ""
    try:
        if base.run is not None:
            instead = "name base.model and base.weights"
            raise NotYetError(what="base.run", instead=instead, key=("base", "run"))
        if not name.startswith(PREFIX) and name not in all_model_names():
            raise UnknownModelError(
                name=name, models=tuple(all_model_names()), key=("base", "model")
            )
        frozen = recipe.freeze.upto != ("none",) or recipe.freeze.only
        if base.weights == "none" and frozen:
            raise RandomFrozenError(model=name, key=("base", "weights"))
        return _open(name, base.weights, base.size, recipe.fine_tune.seed, load)
    except TLCompileError as error:
        error.key = error.key or ("base", "weights")
        raise error.at(recipe.where(error.key)) from error.__cause__


def _open(name: str, weights: str, size: int | None, seed: int, load: bool) -> BaseModel:
    if name == bundled.NAME:
        if size is not None:
            raise NoEffectError(
                line="base.size",
                because=f"'{name}' takes images of 8x8 pixels alone",
                instead="drop base.size",
                key=("base", "size"),
            )
        return bundled.open_bundled(weights, seed, load=load)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name.startswith(PREFIX):
            return open_timm(name, weights, size, load=load)
        return open_torchvision(name, weights, size, load=load)
