"""Modules that added layers become, where torch has none that takes and returns one tensor."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels, at each position of (N, channels, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class GaussianNoise(nn.Module):
    """Add normally distributed noise while training."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return input + torch.randn_like(input) * self.std if self.training else input


class GaussianDropout(nn.Module):
    """Multiply by normally distributed noise of mean 1 and variance p / (1 - p) while training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.std = (p / (1 - p)) ** 0.5

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return input * (1 + torch.randn_like(input) * self.std) if self.training else input


class _Sequence(nn.Module):
    """A recurrent layer of torch that returns the sequence alone.

    It holds the layer instead of being one: `dropout` is a number there, and here a vertex behind it.
    """

    kind: ClassVar[type[nn.RNNBase]]

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.cells = self.kind(**settings)

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, length, features)."""
        sequence: Tensor = self.cells(input)[0]
        return sequence


class RNN(_Sequence):
    """torch.nn.RNN."""

    kind = nn.RNN


class LSTM(_Sequence):
    """torch.nn.LSTM."""

    kind = nn.LSTM


class GRU(_Sequence):
    """torch.nn.GRU."""

    kind = nn.GRU


class MultiheadAttention(nn.Module):
    """torch.nn.MultiheadAttention that returns the values alone; one input attends to itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(**settings)

    def forward(self, query: Tensor, key: Any = None, value: Any = None) -> Tensor:
        """Return (N, length of the query, features of the query)."""
        if key is None:
            key = value = query
        attended: Tensor = self.heads(query, key, value, need_weights=False)[0]
        return attended


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate that sees all channels; torchvision.ops', with its names."""

    def __init__(self, input_channels: int, squeeze_channels: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        gate: Tensor = torch.sigmoid(self.fc2(F.relu(self.fc1(self.avgpool(input)))))
        return gate * input


class SeparableConv(nn.Module):
    """A convolution of each channel by itself, then one over the channels at each position.

    No nn.Sequential, which would also run what follows it in its region.
    """

    def __init__(
        self,
        kind: str,
        in_channels: int,
        out_channels: int,
        depth_multiplier: int,
        bias: bool,
        **window: Any,
    ) -> None:
        super().__init__()
        conv = getattr(nn, kind)
        inner = in_channels * depth_multiplier
        self.depthwise = conv(in_channels, inner, groups=in_channels, bias=False, **window)
        self.pointwise = conv(inner, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return (N, out_channels, ...)."""
        mixed: Tensor = self.pointwise(self.depthwise(input))
        return mixed
