"""What the outputs for one image say: in words, as data, and as the cells of a table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tlcompile.training.goal import Goal

PRESENT = 0.5  # probability from which a label is told of


def worded(goal: Goal, meaning: Tensor) -> tuple[str, str]:
    """Return what is on an image, and how sure that is.

    Args:
        goal: Of the output.
        meaning: Of one image, as `Goal.meaning` gives it.
    """
    if goal.task == "regression":
        numbers = zip(goal.classes, meaning.tolist(), strict=True)
        return ", ".join(f"{name} {value:.4g}" for name, value in numbers), ""
    if goal.task == "multilabel":
        found = [(name, p) for name, p in _named(goal, meaning).items() if p > PRESENT]
        return ", ".join(name for name, _ in found), ", ".join(f"{p:.3f}" for _, p in found)
    if goal.task == "segmentation":
        most = sorted(_shares(goal, meaning).items(), key=lambda one: -one[1])[:3]
        return ", ".join(name for name, _ in most), ", ".join(f"{100 * s:.0f} %" for _, s in most)
    index = int(meaning.argmax())
    return goal.classes[index], f"{float(meaning[index]):.3f}"


def as_data(goal: Goal, meaning: Tensor) -> dict[str, Any]:
    """Return it as plain data."""
    if goal.task == "regression":
        return {"values": _named(goal, meaning)}
    if goal.task == "segmentation":
        return {"shares": _shares(goal, meaning)}
    named = _named(goal, meaning)
    if goal.task == "multilabel":
        labels = [name for name, chance in named.items() if chance > PRESENT]
        return {"labels": labels, "probabilities": named}
    return {"class": max(named, key=named.__getitem__), "probabilities": named}


def columns(goal: Goal) -> tuple[str, ...]:
    """Return the columns of a table of predictions."""
    if goal.task == "regression":
        return goal.classes
    return ("labels" if goal.task == "multilabel" else "class", *goal.classes)


def cells(goal: Goal, meaning: Tensor) -> tuple[str, ...]:
    """Return an image's cells, in the order of `columns`; several labels as 'a;b'."""
    numbers = [f"{value:.6f}" for value in meaning.tolist()]
    if goal.task == "regression":
        return tuple(f"{value:.6g}" for value in meaning.tolist())
    if goal.task == "multilabel":
        return (";".join(as_data(goal, meaning)["labels"]), *numbers)
    return (goal.classes[int(meaning.argmax())], *numbers)


def _named(goal: Goal, meaning: Tensor) -> dict[str, float]:
    return dict(zip(goal.classes, meaning.tolist(), strict=True))


def _shares(goal: Goal, mask: Tensor) -> dict[str, float]:
    """Return the share of the pixels that each class has, of those that have any."""
    counts = torch.bincount(mask.flatten().long(), minlength=len(goal.classes)).tolist()
    shares = zip(goal.classes, counts, strict=True)
    return {name: count / mask.numel() for name, count in shares if count}
