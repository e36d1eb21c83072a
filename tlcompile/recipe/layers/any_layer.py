"""The registry: every layer type that a recipe may name, joined by the word under `layer`."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

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
from tlcompile.recipe.layers.plugins import allowed_plugins, plugin_packages
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

BuiltIn = (
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
    | Affine
)

WORDS = frozenset(
    word for kind in get_args(BuiltIn) for word in get_args(kind.model_fields["layer"].annotation)
)


def _or_plugin(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Let a plug-in read its own settings, if the command line allows it."""
    word = value.get("layer") if isinstance(value, dict) else getattr(value, "layer", None)
    if word in WORDS or not isinstance(word, str):
        return handler(value)
    plugin = allowed_plugins().get(word)
    if plugin is not None:
        return plugin.kind.model_validate(value)
    packages = plugin_packages(word)
    if packages:
        raise ValueError(
            f"layer '{word}' is a plug-in of {packages[0]}, which the command line does not allow"
            f" | if you trust it, add --allow-plugin {word} to the command"
        )
    return handler(value)


# As it is: a plug-in writes settings that no type here has.
AnyLayer = Annotated[
    SerializeAsAny[BuiltIn], Field(discriminator="layer"), WrapValidator(_or_plugin)
]
