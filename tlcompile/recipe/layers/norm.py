"""Normalisations. None of them is a region: an activation behind one is a vertex of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from tlcompile.recipe.fields import NotNegative, Positive, Probability
from tlcompile.recipe.layers.base import Call, Layer, Shape, spatial_dims

_CHANNELS = "(N, channels, length), a map (N, channels, height, width) or a volume"


class BatchNorm(Layer):
    """Batch normalisation of features, sequences, maps or volumes, over dimension 1."""

    wants: ClassVar[str] = f"(N, channels), {_CHANNELS}"

    layer: Literal["batch_norm"]
    eps: NotNegative = Field(1e-5, description="Added to the variance.")
    momentum: Probability = Field(0.1, description="Weight of the newest batch in the statistics.")
    affine: bool = Field(True, description="Whether it learns a scale and a shift.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and up to three dimensions behind them."""
        return 0 <= spatial_dims(shapes[0]) <= 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.BatchNorm1d, 2d or 3d."""
        kwargs = {
            "num_features": shapes[0][0],
            "eps": self.eps,
            "momentum": self.momentum,
            "affine": self.affine,
        }
        return Call(f"nn.BatchNorm{spatial_dims(shapes[0]) or 1}d", kwargs)


class LayerNorm(Layer):
    """Layer normalisation over the features, or with channels_first over the channels."""

    wants: ClassVar[str] = (
        "(N, features) or tokens (N, length, features); with channels_first: true a map"
    )
    advice: ClassVar[str] = "write channels_first: true for a map, or flatten it first"

    layer: Literal["layer_norm"]
    eps: NotNegative = Field(1e-5, description="Added to the variance.")
    channels_first: bool = Field(
        False, description="Over the channels of (N, channels, ...) at each position, as ConvNeXt."
    )

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Refuse a map, whose last dimension is its width in pixels, unless channels come first."""
        return len(shapes[0]) > 1 if self.channels_first else len(shapes[0]) in (1, 2)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.LayerNorm, or the one that finds its channels in dimension 1."""
        if self.channels_first:
            kwargs = {"normalized_shape": shapes[0][0], "eps": self.eps}
            return Call("own_modules.ChannelsFirstLayerNorm", kwargs)
        return Call("nn.LayerNorm", {"normalized_shape": shapes[0][-1], "eps": self.eps})


class RmsNorm(Layer):
    """Division by the root mean square of the features."""

    wants: ClassVar[str] = "(N, features) or tokens (N, length, features)"

    layer: Literal["rms_norm"]
    eps: NotNegative = Field(1e-6, description="Added to the mean square.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Refuse a map, whose last dimension is its width in pixels."""
        return len(shapes[0]) in (1, 2)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.RMSNorm."""
        return Call("nn.RMSNorm", {"normalized_shape": shapes[0][-1], "eps": self.eps})


class GroupNorm(Layer):
    """Normalisation over groups of channels and all positions, within a sample."""

    wants: ClassVar[str] = "channels in dimension 1 that num_groups divides"
    advice: ClassVar[str] = "write num_groups: 1, or another divisor of the channels"

    layer: Literal["group_norm"]
    num_groups: Positive = Field(description="Groups; must divide the channels.")
    eps: NotNegative = Field(1e-5, description="Added to the variance.")
    affine: bool = Field(True, description="Whether it learns a scale and a shift.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels that the groups divide."""
        return bool(shapes[0]) and shapes[0][0] % self.num_groups == 0

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.GroupNorm."""
        kwargs = {
            "num_groups": self.num_groups,
            "num_channels": shapes[0][0],
            "eps": self.eps,
            "affine": self.affine,
        }
        return Call("nn.GroupNorm", kwargs)


class InstanceNorm(Layer):
    """Normalisation of each channel over its positions, within a sample."""

    wants: ClassVar[str] = _CHANNELS

    layer: Literal["instance_norm"]
    eps: NotNegative = Field(1e-5, description="Added to the variance.")
    affine: bool = Field(False, description="Whether it learns a scale and a shift.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and one to three dimensions behind them."""
        return 1 <= spatial_dims(shapes[0]) <= 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.InstanceNorm1d, 2d or 3d."""
        kwargs = {"num_features": shapes[0][0], "eps": self.eps, "affine": self.affine}
        return Call(f"nn.InstanceNorm{spatial_dims(shapes[0])}d", kwargs)


class LocalResponseNorm(Layer):
    """Division of each value by those of neighbouring channels, as in AlexNet."""

    wants: ClassVar[str] = _CHANNELS

    layer: Literal["local_response_norm"]
    size: Positive = Field(description="Channels that are looked at.")
    alpha: NotNegative = Field(1e-4, description="Factor of the sum of squares.")
    beta: NotNegative = Field(0.75, description="Exponent.")
    k: NotNegative = Field(1.0, description="Added before the exponent.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and one to three dimensions behind them."""
        return 1 <= spatial_dims(shapes[0]) <= 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.LocalResponseNorm."""
        kwargs = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return Call("nn.LocalResponseNorm", kwargs)


class L2Normalise(Layer):
    """Each sample's channels divided by their Euclidean norm."""

    wants: ClassVar[str] = "channels or features in dimension 1"

    layer: Literal["l2_normalise"]
    eps: NotNegative = Field(1e-12, description="Smallest norm that is divided by.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a dimension behind the batch."""
        return bool(shapes[0])

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.functional.normalize."""
        return Call("nn.functional.normalize", {"dim": 1, "eps": self.eps})
