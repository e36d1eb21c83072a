"""Randomness while training; in eval mode each of these returns its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from tlcompile.recipe.fields import NotNegative, Probability
from tlcompile.recipe.layers.base import Call, Layer, Shape, spatial_dims

_CLASSES = {
    "dropout": "nn.Dropout",
    "alpha_dropout": "nn.AlphaDropout",
    "feature_alpha_dropout": "nn.FeatureAlphaDropout",
    "gaussian_dropout": "own_modules.GaussianDropout",
}


class Dropout(Layer):
    """Zero single values (gaussian_dropout: multiply by noise; alpha_*: keep mean and variance)."""

    layer: Literal["dropout", "alpha_dropout", "feature_alpha_dropout", "gaussian_dropout"]
    p: Probability = Field(0.5, description="Drop probability.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the class of torch.nn, or our own."""
        return Call(_CLASSES[self.layer], {"p": self.p})


class SpatialDropout(Layer):
    """Zero whole channels."""

    wants: ClassVar[str] = "(N, channels, length), a map (N, channels, height, width) or a volume"

    layer: Literal["spatial_dropout"]
    p: Probability = Field(0.5, description="Drop probability of a channel.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and one to three dimensions behind them."""
        return 1 <= spatial_dims(shapes[0]) <= 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Dropout1d, 2d or 3d."""
        return Call(f"nn.Dropout{spatial_dims(shapes[0])}d", {"p": self.p})


class GaussianNoise(Layer):
    """Add normally distributed noise."""

    layer: Literal["gaussian_noise"]
    std: NotNegative = Field(0.1, description="Standard deviation of the noise.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return our own module."""
        return Call("own_modules.GaussianNoise", {"std": self.std})
