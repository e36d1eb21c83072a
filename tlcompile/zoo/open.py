"""Open the base that a recipe names: the one door to the zoo."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tlcompile.errors.ancestry import OwnModuleRunError
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.weights import RandomFrozenError, UnknownModelError
from tlcompile.recipe.finished import FinishedRun, find_run, read_run
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo import bundled
from tlcompile.zoo.base import BaseModel, base_from_module, copied
from tlcompile.zoo.preprocessing import Preprocessing
from tlcompile.zoo.timm import PREFIX, open_timm, timm_names
from tlcompile.zoo.torchvision import model_names, open_torchvision


def all_model_names(like: str = "") -> list[str]:
    """Return every name that `base.model` takes; timm's where `like` begins with `timm/`.

    timm's 1,400 names take seconds to collect, and would hide the others.
    """
    return timm_names() if like.startswith(PREFIX) else [bundled.NAME, *model_names()]


def open_base(recipe: Recipe, module: nn.Module | None = None, *, load: bool = True) -> BaseModel:
    """Open the base of a recipe.

    Args:
        recipe: Its `base`, `freeze`, `inputs` and `fine_tune.seed` are read.
        module: Your own instead; it is copied.
        load: Whether real weights are wanted; without, nothing is downloaded or read.

    Raises:
        UnknownModelError: The zoo has no such model.
        RandomFrozenError: No weights, and something is frozen.
        WeightsError: The weights do not fit or cannot be had.
        RunError: The run that it names cannot be found, or be used.
    """
    base = recipe.base
    try:
        if base.run is not None:
            return _open_run(read_run(find_run(base.run)), module)
        if module is not None:
            return base_from_module(copied(module), base.size, recipe.inputs)
        return _open_named(recipe, str(base.model), load)
    except TLCompileError as error:
        error.key = error.key or ("base", "run" if base.run else "weights")
        raise error.at(recipe.where(error.key)) from error.__cause__


def open_origin(run: FinishedRun, module: nn.Module | None = None) -> BaseModel:
    """Open what a finished run's model is to be built from again; its tensors have no meaning.

    Args:
        run: The run.
        module: Your own, where it all began with it.

    Raises:
        OwnModuleRunError: It did, and `module` is missing.
    """
    if module is None and run.on_own_module:
        raise OwnModuleRunError(run=str(run.folder), module=run.root["model"])
    *earlier, _ = run.steps
    return replace(open_base(run.steps[0][0], module, load=False), steps=tuple(earlier))


def _open_run(run: FinishedRun, module: nn.Module | None) -> BaseModel:
    """Open a finished run: the model that it ended with is the base."""
    return replace(
        open_origin(run, module),
        name=str(run.folder),
        preprocessing=Preprocessing.from_dict(run.record["preprocessing"]),
        weights=str(run.folder),
        loaded=True,
        categories=run.classes,
        steps=run.steps,
        run=run,
    )


def _open_named(recipe: Recipe, name: str, load: bool) -> BaseModel:
    if not name.startswith(PREFIX) and name not in all_model_names():
        raise UnknownModelError(name=name, models=tuple(all_model_names()), key=("base", "model"))
    frozen = recipe.freeze.upto != ("none",) or recipe.freeze.only
    if recipe.base.weights == "none" and frozen:
        raise RandomFrozenError(model=name, key=("base", "weights"))
    return _open(name, recipe.base.weights, recipe.base.size, recipe.fine_tune.seed, load)


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
        torch.default_generator.manual_seed(seed)
        if name.startswith(PREFIX):
            return open_timm(name, weights, size, load=load)
        return open_torchvision(name, weights, size, load=load)
