"""Labelled images that a finished run is judged by: its own, a folder, or a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tlcompile.bundle import Bundle
from tlcompile.data.samples import Samples
from tlcompile.errors.data import UnknownClassError
from tlcompile.errors.training import UnlabelledPlaceError
from tlcompile.run.splits import Say, open_place, open_splits
from tlcompile.training.goal import Goal

FOLDERS = ("classification", "binary", "segmentation")  # tasks that folders can answer


def own_images(bundle: Bundle, say: Say) -> Samples:
    """Return the validation images that the run was judged by; without any those of training."""
    splits = open_splits(bundle.recipe, bundle.preprocessing.channels, say, bundle.classes)
    return splits.val or splits.train


def labelled(bundle: Bundle, place: str, goals: Mapping[str, Goal], say: Say) -> Samples:
    """Return other images with the bundle's classes, mapped by name.

    Args:
        bundle: Says what is to be predicted.
        place: A folder as for training, or a CSV with the same columns.
        goals: Of each output.
        say: Takes lines for the user.

    Raises:
        UnknownClassError: A class, label or number is none that the model knows.
        UnlabelledPlaceError: A folder cannot say what is to be predicted.
    """
    task = bundle.recipe.task
    if Path(place).suffix != ".csv" and task not in FOLDERS:
        raise UnlabelledPlaceError(path=place, task=str(bundle.task))
    names = bundle.classes if task == "segmentation" else None
    samples = open_place(bundle.recipe, place, bundle.preprocessing.channels, say, names)
    if samples.masks:
        return samples
    if isinstance(samples.values, Mapping):
        several = {n: _renamed(samples.values[n], samples.names[n], goals[n], place) for n in goals}
        return replace(samples, values=several, names={n: g.classes for n, g in goals.items()})
    goal = goals[""]
    values = samples.values if samples.values is not None else torch.tensor(samples.labels)
    values = _renamed(values, samples.classes, goal, place)
    if samples.values is not None:
        return replace(samples, values=values, classes=goal.classes)
    return replace(samples, labels=tuple(values.tolist()), classes=goal.classes)


def _renamed(values: Tensor, names: Sequence[str], goal: Goal, place: str) -> Tensor:
    """Return class indices, or columns, in the order of the model's outputs."""
    of_one = values.dim() == 1
    used = [n for i, n in enumerate(names) if not of_one or bool((values == i).any())]
    unknown = tuple(name for name in used if name not in goal.classes)
    if unknown:
        raise UnknownClassError(names=unknown, classes=goal.classes, place=place)
    if of_one:
        order = [goal.classes.index(n) if n in goal.classes else -1 for n in names]
        return torch.tensor(order, dtype=torch.int64)[values]
    moved = torch.zeros(len(values), len(goal.classes), dtype=values.dtype)
    moved[:, [goal.classes.index(name) for name in names]] = values
    return moved
