"""Split samples into training and validation, class by class. Reads no image."""

from __future__ import annotations

import math

import torch

from tlcompile.data.samples import Samples, generator


def stratified_split(samples: Samples, val: float, seed: int) -> tuple[Samples, Samples]:
    """Put the share `val` of every class aside; both parts keep their order.

    A class of two or more images has at least one in each part; a single image trains. The draw
    of a class depends on `seed`, its name and its size alone.
    """
    aside: set[int] = set()
    for name, members in zip(samples.classes, samples.members(), strict=True):
        order = torch.randperm(len(members), generator=generator(seed, "split", name))
        aside.update(members[i] for i in order[: _share(len(members), val)].tolist())
    everything = range(len(samples))
    return (
        samples.subset([i for i in everything if i not in aside]),
        samples.subset([i for i in everything if i in aside]),
    )


def _share(count: int, val: float) -> int:
    if count < 2:
        return 0
    return min(max(1, math.floor(count * val + 0.5)), count - 1)
