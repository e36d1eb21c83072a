"""Images that are mixed with one another in front of the frozen part, which runs in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tlcompile.data.samples import generator
from tlcompile.data.targets import Targets
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Batches, LiveSource, moved, trainable

Mix = Callable[[Rows, Any, torch.Generator], tuple[Rows, Any]]


@dataclass(frozen=True)
class MixedSource:
    """A live source whose images are mixed, a pure function of (seed, epoch, batch).

    Attributes:
        source: Reads the images, and has the frozen part.
        mix: Mixes a batch of images, and what they are compared with.
        seed: Of the draws.
        rank: Of the process: each mixes the images of its own part of a batch.
    """

    source: LiveSource
    mix: Mix
    seed: int
    rank: int = 0

    @property
    def targets(self) -> Targets:
        """What the outputs for each sample are compared with, unmixed."""
        return self.source.targets

    def batches(self, batches: Batches, epoch: int, first: int = 0) -> Iterator[tuple[Rows, Any]]:
        """Yield (rows, mixed targets) of each batch; those before `first` are skipped."""
        source = self.source
        for number, batch in enumerate(batches[first:], first):
            pairs = source.pairs(batch, epoch)
            random = generator(self.seed, "mix", epoch, number, self.rank)
            images, targets = self.mix((source.load(pairs),), source.targets.take(pairs), random)
            rows = trainable(source.prefix(*images))
            yield rows, moved(targets, rows[0].device)
