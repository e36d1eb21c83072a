"""Split samples into training and validation so that both look alike. Reads no image."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcompile.data.samples import Samples, generator

RANGES = 10  # of numbers to predict, equally full


def stratified_split(samples: Samples, val: float, seed: int) -> tuple[Samples, Samples]:
    """Put the share `val` aside; both parts keep their order.

    Where a sample has one class, that share of every class: a class of two or more images has at
    least one in each part; a single image trains. The draw of a class depends on `seed`, its name
    and its size alone. Several labels, numbers (by tenths of their order) and several outputs are
    spread as evenly as one draw can. Masks are not looked at: the draw is of all images.
    """
    if samples.labels or not len(samples):
        aside = _by_class(samples, val, seed)
    else:
        aside = _by_marks(_marks_of(samples), val, seed)
    everything = range(len(samples))
    return (
        samples.subset([i for i in everything if i not in aside]),
        samples.subset([i for i in everything if i in aside]),
    )


def _by_class(samples: Samples, val: float, seed: int) -> set[int]:
    aside: set[int] = set()
    for name, members in zip(samples.classes, samples.members(), strict=True):
        order = torch.randperm(len(members), generator=generator(seed, "split", name))
        aside.update(members[i] for i in order[: _share(len(members), val)].tolist())
    return aside


def _by_marks(marks: NDArray[np.bool_], val: float, seed: int) -> set[int]:
    """Spread samples by what is marked of them, the rarest mark first.

    Source:
        Iterative stratification for two parts: Sechidis, Tsoumakas and Vlahavas 2011, On the
        stratification of multi-label data.
    """
    count = len(marks)
    order = torch.randperm(count, generator=generator(seed, "split")).numpy()
    counts = marks.sum(0)
    # How many samples each part still wants: of all, and of each mark. Row 0 trains, row 1 is val.
    share = np.array([1 - val, val])
    room = np.array([count - _share(count, val), _share(count, val)], np.float64)
    wanted = share[:, None] * counts
    left = np.ones(count, bool)
    aside: set[int] = set()
    for mark in [*np.argsort(counts, kind="stable"), None]:
        for sample in order if mark is None else order[marks[order, mark]]:
            if not left[sample]:
                continue
            want = room / share if mark is None else wanted[:, mark]
            # A part that is full takes no more; of equal wants, the larger part has the more room.
            part = int(np.argmax(np.where(room > 0, want, -np.inf) + 1e-9 * room))
            left[sample] = False
            room[part] -= 1
            wanted[part, marks[sample]] -= 1
            if part == 1:
                aside.add(int(sample))
    return aside


def _marks_of(samples: Samples) -> NDArray[np.bool_]:
    """Return what is true of each sample: its labels, its classes, the ranges of its numbers."""
    values = samples.values
    if values is None:
        return np.zeros((len(samples), 0), bool)
    tensors = list(values.values()) if isinstance(values, Mapping) else [values]
    return np.concatenate([_marks(tensor) for tensor in tensors], axis=1)


def _marks(values: Tensor) -> NDArray[np.bool_]:
    """Mark one output's values.

    Shape:
        in: (N,) int64 or (N, T) float32   out: (N, marks)
    """
    if values.dtype == torch.int64:
        return torch.nn.functional.one_hot(values).bool().numpy()
    array = values.double().numpy()
    if np.isin(array, (0, 1)).all():
        return array.astype(bool)
    return np.concatenate([_ranges(column) for column in array.T], axis=1)


def _ranges(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mark in which of equally full ranges each number lies."""
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, RANGES + 1)[1:-1]))
    place = np.searchsorted(edges, numbers, side="right")
    return np.equal.outer(place, np.arange(len(edges) + 1))


def _share(count: int, val: float) -> int:
    if count < 2:
        return 0
    return min(max(1, math.floor(count * val + 0.5)), count - 1)
