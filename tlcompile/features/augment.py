"""Random changes to features while training: noise and dropout. What is stored stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tlcompile.data.samples import generator
from tlcompile.data.targets import Targets
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Batches, Source


@dataclass(frozen=True)
class AugmentedSource:
    """A source whose rows are changed, a pure function of (seed, epoch, batch).

    Attributes:
        source: Kept, stored or live: the same changes.
        noise: In standard deviations of the batch's own features.
        dropout: Share of the features that are set to 0; the others grow to keep the mean.
        seed: Of the draws.
        rank: Of the process: each changes its own part of a batch.

    Source:
        Noise and point-wise changes on frozen features: FroFA, CVPR 2024.
    """

    source: Source
    noise: float
    dropout: float
    seed: int
    rank: int = 0

    @property
    def targets(self) -> Targets:
        """What the outputs for each sample are compared with."""
        return self.source.targets

    def batches(self, batches: Batches, epoch: int, first: int = 0) -> Iterator[tuple[Rows, Any]]:
        """Yield (changed rows, targets) of each batch; those before `first` are skipped."""
        found = self.source.batches(batches, epoch, first)
        for number, (rows, targets) in enumerate(found, first):
            random = generator(self.seed, "features", epoch, number, *self._own())
            yield tuple(self._changed(tensor, random) for tensor in rows), targets

    def _own(self) -> tuple[int, ...]:
        """Return what sets this process apart; the first draws what one process alone would."""
        return (self.rank,) if self.rank else ()

    def _changed(self, tensor: Tensor, random: torch.Generator) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if self.noise:
            drawn = torch.randn(tensor.shape, generator=random).to(tensor.device)
            tensor = tensor + self.noise * tensor.std(correction=0) * drawn  # of one number, too
        if self.dropout:
            kept = torch.rand(tensor.shape, generator=random).to(tensor.device) >= self.dropout
            tensor = tensor * kept / (1 - self.dropout)
        return tensor
