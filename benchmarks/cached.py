"""The tutorial's work as a recipe, run by tlcompile in a cache of its own that is empty before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from side import Pause
from tutorial import Settings

import tlcompile
from tlcompile import Recipe
from tlcompile.recipe.load import complete
from tlcompile.run.train import train_recipe

PRECISIONS = ("exact", "fp32-fused", "fast")
SIDE = 224  # pixels; resized to 256 before, as in the tutorial


def recipe_of(settings: Settings, precision: str = "exact") -> Recipe:
    """Write the tutorial's settings as a recipe; with augmentation, as many views as epochs."""
    optimizer: dict[str, Any] = {"name": settings.optimizer, "lr": settings.rate}
    if settings.optimizer == "sgd":
        optimizer["momentum"] = 0.9
    sections: dict[str, Any] = {
        "name": "side_by_side",
        "base": {"model": settings.model, "weights": str(settings.weights), "size": SIDE},
        "freeze": {"upto": ["head" if settings.upto == "layer4" else settings.upto]},
        "data": {"folder": str(settings.folder)},
        "features": {"precision": precision},
        "fine_tune": {
            "optimizer": optimizer,
            "schedule": {"name": "step", "every": 7},
            "epochs": settings.epochs,
            "batch_size": settings.batch,
        },
        "run": {"device": "cpu", "workers": settings.workers},
    }
    if settings.augment:
        sections["data"]["augment"] = {"train": ["random_resized_crop", "horizontal_flip"]}
        sections["features"]["views"] = settings.epochs
    return Recipe.model_validate(sections)


@contextmanager
def cold_cache() -> Iterator[Path]:
    """Give a folder for runs, and an empty cache beside it that every run inside uses."""
    with TemporaryDirectory(prefix="cold-") as folder:
        cache = str(Path(folder) / "cache")
        with mock.patch.dict(os.environ, {"TLCOMPILE_CACHE": cache}):
            yield Path(folder)


def run(pause: Pause, settings: Settings, precision: str) -> None:
    """Train once, from an empty cache to the finished bundle: one step."""
    with cold_cache() as folder:
        tlcompile.train(recipe_of(settings, precision), folder=folder / "run")
    pause()


def epochs(pause: Pause, settings: Settings, precision: str) -> None:
    """Train; an epoch is a step, and extraction belongs to the first."""
    with cold_cache() as folder:
        recipe = complete(recipe_of(settings, precision))
        train_recipe(recipe, folder / "run", on_epoch=lambda _row, _best: pause())
