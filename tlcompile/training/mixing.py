"""Mix the samples of a batch with one another, and what they are compared with in the same shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from tlcompile.data.transforms import DrawingFrom


@dataclass(frozen=True)
class Mixing:
    """MixUp, CutMix, or one of the two drawn for each batch; each sample with the one before it.

    Called as `mixing(rows, targets, generator)`: on a whole batch, before it is cut into pieces.

    Args:
        mixup: Alpha of the Beta distribution that the share is drawn from; None: no MixUp.
        cutmix: The same, of the share of the area; None: no CutMix. For images alone.
        num_classes: Of class indices, which become (N, num_classes) shares; None: the targets are
            numbers already, which are mixed as they are. Where there are several outputs, of each.

    Source:
        arXiv 1710.09412 and 1905.04899, as torchvision.transforms.v2 does them: equal to the bit
        under one seed (tests/training/test_mixing.py).
    """

    mixup: float | None = None
    cutmix: float | None = None
    num_classes: int | Mapping[str, int | None] | None = None

    def __call__(
        self, rows: tuple[Tensor, ...], targets: Any, random: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Any]:
        """Return mixed rows and targets; whole numbers among the rows stay as they are.

        Shape:
            rows: (N, ...), with CutMix (N, C, H, W)   targets: (N,) or (N, T), or these by output
        """
        with DrawingFrom(random):
            if self._cuts():
                rows, share = _cut(rows, float(self.cutmix or 1))
            else:
                rows, share = _blend(rows, float(self.mixup or 1))
        counts = self.num_classes
        if isinstance(counts, Mapping):
            soft = {name: _soft(one, counts[name]) for name, one in targets.items()}
            return rows, {name: _mixed(one, share) for name, one in soft.items()}
        return rows, _mixed(_soft(targets, counts), share)

    def _cuts(self) -> bool:
        """Choose how this batch is mixed."""
        if self.mixup is None or self.cutmix is None:
            return self.cutmix is not None
        return bool(torch.rand(()) < 0.5)


def _share(alpha: float) -> float:
    concentration = torch.tensor([alpha])
    return float(torch.distributions.Beta(concentration, concentration).sample(()))


def _blend(rows: tuple[Tensor, ...], alpha: float) -> tuple[tuple[Tensor, ...], float]:
    share = _share(alpha)
    return tuple(_mixed(row, share) if row.is_floating_point() else row for row in rows), share


def _mixed(values: Tensor, share: float) -> Tensor:
    """Return so much of each sample, and the rest of the one before it."""
    return values.roll(1, 0).mul_(1.0 - share).add_(values.mul(share))


def _cut(rows: tuple[Tensor, ...], alpha: float) -> tuple[tuple[Tensor, ...], float]:
    (images,) = rows
    drawn = v2.CutMix(alpha=alpha).make_params([images])
    left, top, right, bottom = drawn["box"]
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    return (mixed,), drawn["lam_adjusted"]


def _soft(targets: Tensor, num_classes: int | None) -> Tensor:
    """Return targets as numbers that can be mixed."""
    if num_classes is not None and targets.dim() == 1:
        targets = one_hot(targets, num_classes)
    return targets if targets.is_floating_point() else targets.float()
