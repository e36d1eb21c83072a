"""Attention between tokens (N, length, features), and between channels of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tlcompile.recipe.fields import Positive, Probability
from tlcompile.recipe.layers.base import Biased, Call, Layer, Parametric, Shape

_TOKENS = "tokens (N, length, features): one input, or query, key and value"


def _are_tokens(shapes: Sequence[Shape]) -> bool:
    """Tell whether one or three sequences came, key and value of one length."""
    if len(shapes) not in (1, 3) or any(len(shape) != 2 for shape in shapes):
        return False
    return len(shapes) == 1 or shapes[1][0] == shapes[2][0]


class MultiHeadAttention(Biased):
    """Multi-head attention; one input attends to itself."""

    inherits_activation: ClassVar[bool] = False
    num_inputs: ClassVar[tuple[int, int]] = (1, 3)
    wants: ClassVar[str] = f"{_TOKENS}; num_heads divides the features of the query"
    advice: ClassVar[str] = (
        "read tokens (N, length, features), whose features num_heads divides: a map needs reshape and permute"
    )

    layer: Literal["multi_head_attention"]
    num_heads: Positive = Field(description="Heads; must divide the features of the query.")
    attention_dropout: Probability = Field(
        0.0, description="Drop probability of the weights (torch's `dropout`)."
    )

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one sequence or three, and for features that the heads divide."""
        return _are_tokens(shapes) and shapes[0][-1] % self.num_heads == 0

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.MultiheadAttention, the values alone."""
        query, key, value = shapes if len(shapes) == 3 else (shapes[0],) * 3
        kwargs = {
            "embed_dim": query[-1],
            "num_heads": self.num_heads,
            "dropout": self.attention_dropout,
            "bias": self.bias,
            "kdim": key[-1],
            "vdim": value[-1],
            "batch_first": True,
        }
        return Call("own_modules.MultiheadAttention", kwargs)


class DotProductAttention(Layer):
    """Scaled dot-product attention, without weights; one input attends to itself."""

    num_inputs: ClassVar[tuple[int, int]] = (1, 3)
    wants: ClassVar[str] = f"{_TOKENS}; query and key of as many features"
    advice: ClassVar[str] = "put a linear before the key, or read one vertex or three"

    layer: Literal["dot_product_attention"]
    scale: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Factor of the products; default: 1 / sqrt(features)."
    )

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one sequence or three, and for features that can be multiplied."""
        return _are_tokens(shapes) and (len(shapes) == 1 or shapes[0][-1] == shapes[1][-1])

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call("own.dot_product_attention", {"scale": self.scale}, as_list=True)


class SqueezeExcitation(Parametric):
    """Scale each channel by a gate that sees the means of all channels."""

    channels_first: ClassVar[bool] = True
    inherits_activation: ClassVar[bool] = False
    wants: ClassVar[str] = "a map (N, channels, height, width)"
    advice: ClassVar[str] = "read a vertex before the pooling; `tlcompile plan` shows shapes"

    layer: Literal["squeeze_excitation"]
    squeeze_channels: Positive | None = Field(
        None, description="Channels between; default: a sixteenth of the map's, at least 1."
    )

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a map."""
        return len(shapes[0]) == 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the module of torchvision.ops, without its options."""
        channels = shapes[0][0]
        squeeze = self.squeeze_channels or max(1, channels // 16)
        kwargs = {"input_channels": channels, "squeeze_channels": squeeze}
        return Call("own_modules.SqueezeExcitation", kwargs)
