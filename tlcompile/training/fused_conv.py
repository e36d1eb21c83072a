"""Convolutions of several members as one: over rows that all share, one with all members' channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.training.fused_ways import Way, Ways, own


class MemberConv(nn.Module):
    """nn.Conv2d of each member.

    Shape:
        in: (N, C, H, W), the same for all members, or (K * N, C, H, W)   out: (K * N, O, H, W)

    Args:
        layer: Where every member begins; it pads with zeros.
        members: How many.
        ways: Chooses how to compute.
        is_shared: Whether all members read the same.
    """

    def __init__(self, layer: nn.Conv2d, members: int, ways: Ways, *, is_shared: bool) -> None:
        super().__init__()
        self.ways, self.is_shared = ways, is_shared
        weight = layer.weight.detach()
        self.weight = nn.Parameter(weight.expand(members, *weight.shape).clone())
        self.bias = None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().expand(members, -1).clone())
        self.how: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding}
        self.how |= {"dilation": layer.dilation, "groups": layer.groups}

    def forward(self, rows: Tensor) -> Tensor:
        """Compute every member's channels."""
        given = [rows, self.weight] if self.bias is None else [rows, self.weight, self.bias]
        # Alone, channels that come last stay last; what reads them adds up in their order.
        is_wide = self.is_shared and self.how["groups"] == 1 and rows.is_contiguous()
        alone = partial(_alone, self.how, self.is_shared)
        several: tuple[Way, ...] = (partial(_wide, self.how),) if is_wide else ()
        way = self.ways.choose(f"conv {self.how}", (*several, alone), *given, seen=_both_ways)
        found: Tensor = way(*given)
        return found


# (N, C, H, W) or (K * N, C, H, W), (K, O, C, h, w), (K, O) -> (K * N, O, H, W)


def _wide(how: dict[str, Any], rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute all members' channels by one convolution."""
    every = None if bias is None else bias.flatten()
    wide = F.conv2d(rows, weight.flatten(0, 1), every, **how)
    each = wide.view(len(rows), *weight.shape[:2], *wide.shape[2:])
    return each.transpose(0, 1).flatten(0, 1)


def _alone(
    how: dict[str, Any], is_shared: bool, rows: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    members = len(weight)
    each = [rows] * members if is_shared else [one.clone() for one in rows.chunk(members)]
    biases = [None] * members if bias is None else own(bias)
    given = zip(each, (one.clone() for one in weight), biases, strict=True)
    found = [F.conv2d(one, kernel, shift, **how) for one, kernel, shift in given]
    for one in found:
        if one.requires_grad:
            # Where its gradient begins in a cache line counts, too.
            one.register_hook(torch.clone)  # type: ignore[no-untyped-call]
    return torch.cat(found)


def _both_ways(way: Way, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return what comes out, and the gradients of weight and bias."""
    rows, *weights = given
    held = [weight.detach().requires_grad_() for weight in weights]
    with torch.enable_grad():
        found: Tensor = way(rows.detach(), *held)
    draw = torch.Generator().manual_seed(1)
    grad = torch.randn(found.shape, generator=draw).to(found)
    return found.detach(), *torch.autograd.grad(found, held, grad)
