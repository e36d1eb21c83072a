"""The order of an epoch: a pure function of (seed, epoch), so that a resumed run goes on in it."""

from __future__ import annotations

import torch
from torch import Tensor

from tlcompile.data.samples import Samples, generator


def epoch_order(count: int, seed: int, epoch: int, weights: Tensor | None = None) -> list[int]:
    """Return which samples an epoch sees, in order.

    Args:
        count: Number of samples, and of places in the epoch.
        seed: Of the run.
        epoch: Counts from 0, over all phases.
        weights: (N,) of drawing a sample, with replacement; None: each sample once.
    """
    random = generator(seed, "order", epoch)
    if weights is None:
        return torch.randperm(count, generator=random).tolist()
    return torch.multinomial(weights, count, replacement=True, generator=random).tolist()


def balanced_weights(samples: Samples) -> Tensor:
    """Return the weights that draw every class equally often: 1 / its number of samples.

    Shape:
        out: (N,) float64
    """
    labels = torch.tensor(samples.labels)
    return 1 / torch.bincount(labels, minlength=len(samples.classes))[labels].double()
