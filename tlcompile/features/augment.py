"""Random changes to features while training: noise and dropout. What is stored stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlcompile.data.samples import generator
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Source


@dataclass(frozen=True)
class AugmentedSource:
    """A source whose rows are changed, a pure function of (seed, epoch, batch).

    Attributes:
        source: Kept, stored or live: the same changes.
        noise: In standard deviations of the batch's own features.
        dropout: Share of the features that are set to 0; the others grow to keep the mean.
        seed: Of the draws.

    Source:
        Noise and point-wise changes on frozen features: FroFA, CVPR 2024.
    """

    source: Source
    noise: float
    dropout: float
    seed: int

    @property
    def labels(self) -> Tensor:
        """(N,) class indices."""
        return self.source.labels

    def batches(
        self, order: Sequence[int], batch_size: int, epoch: int
    ) -> Iterator[tuple[Rows, Tensor]]:
        """Yield (changed rows, labels) in the given order."""
        batches = self.source.batches(order, batch_size, epoch)
        for number, (rows, labels) in enumerate(batches):
            random = generator(self.seed, "features", epoch, number)
            yield tuple(self._changed(tensor, random) for tensor in rows), labels

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
