"""The registry: every layer type that a recipe may name, joined by the word under `layer`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tlcompile.recipe.layers.activation import ActivationLayer, PRelu
from tlcompile.recipe.layers.attention import (
    DotProductAttention,
    MultiHeadAttention,
    SqueezeExcitation,
)
from tlcompile.recipe.layers.conv import Conv, ConvTranspose, DepthwiseConv2d, SeparableConv
from tlcompile.recipe.layers.dense import Bilinear, Embedding, Linear
from tlcompile.recipe.layers.merge import (
    Affine,
    Concat,
    DotProduct,
    Elementwise,
    PairwiseDistance,
    Stack,
    Subset,
    Unstack,
)
from tlcompile.recipe.layers.noise import Dropout, GaussianNoise, SpatialDropout
from tlcompile.recipe.layers.norm import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    L2Normalise,
    LayerNorm,
    LocalResponseNorm,
    RmsNorm,
)
from tlcompile.recipe.layers.pool import AdaptivePool, AvgPool, GlobalPool, LpPool, MaxPool
from tlcompile.recipe.layers.recurrent import Gated, Rnn
from tlcompile.recipe.layers.shape import (
    Crop,
    Flatten,
    LastStep,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Repeat,
    Reshape,
    ReverseTime,
    Upsample,
)

AnyLayer = Annotated[
    Linear
    | Bilinear
    | Embedding
    | Conv
    | ConvTranspose
    | DepthwiseConv2d
    | SeparableConv
    | BatchNorm
    | LayerNorm
    | RmsNorm
    | GroupNorm
    | InstanceNorm
    | LocalResponseNorm
    | L2Normalise
    | Dropout
    | SpatialDropout
    | GaussianNoise
    | ActivationLayer
    | PRelu
    | MaxPool
    | AvgPool
    | LpPool
    | AdaptivePool
    | GlobalPool
    | Rnn
    | Gated
    | MultiHeadAttention
    | DotProductAttention
    | SqueezeExcitation
    | Flatten
    | Reshape
    | Permute
    | Pad
    | Crop
    | Upsample
    | PixelShuffle
    | PixelUnshuffle
    | LastStep
    | ReverseTime
    | Repeat
    | Concat
    | Elementwise
    | PairwiseDistance
    | DotProduct
    | Stack
    | Unstack
    | Subset
    | Affine,
    Field(discriminator="layer"),
]
