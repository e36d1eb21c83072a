"""Convolutions over sequences, maps and volumes, channels first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tlcompile.recipe.fields import CountSizes, Positive, Sizes
from tlcompile.recipe.layers.base import Biased, Call, Shape, Wide, spatial_dims

_WANTS = "(N, channels, length), a map (N, channels, height, width) or a volume, as the type says"


class _Window(Biased):
    """A window that moves along as many dimensions as the type's name says."""

    channels_first: ClassVar[bool] = True
    wants: ClassVar[str] = _WANTS

    kernel: Sizes = Field(
        3, description="Size of the window, pixels; one number, or one a dimension."
    )
    stride: Sizes = Field(1, description="Step, pixels.")
    dilation: Sizes = Field(1, description="Distance between points of the window, pixels.")

    @property
    def dims(self) -> int:
        """How many dimensions it moves along."""
        return int(str(self.layer)[-2])  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _one_size_a_dimension(self) -> Self:
        for name in ("kernel", "stride", "dilation", "padding", "output_padding"):
            size = getattr(self, name, None)
            if isinstance(size, tuple) and len(size) != self.dims:
                raise ValueError(
                    f"{name} has {len(size)} numbers for {self.dims} dimension(s) | "
                    f"write {name}: {size[0]}"
                )
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and as many dimensions behind them."""
        return spatial_dims(shapes[0]) == self.dims

    def _window(self) -> dict[str, Any]:
        window = {
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": self.padding,  # type: ignore[attr-defined]
            "dilation": self.dilation,
        }
        mode = getattr(self, "padding_mode", "zeros")
        return window if mode == "zeros" else {**window, "padding_mode": mode}


class _Padded(_Window):
    """A window over padded sides."""

    padding: CountSizes | Literal["same"] = Field(0, description="Added at each side, pixels.")
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = Field(
        "zeros", description="What is added."
    )

    @model_validator(mode="after")
    def _mode_needs_padding(self) -> Self:
        if self.padding_mode != "zeros" and self.padding in (0, (0,) * self.dims):
            raise ValueError(
                f"padding_mode: {self.padding_mode} has no effect without padding | "
                "write padding: 1"
            )
        return self


class Conv(_Padded, Wide):
    """Convolution."""

    layer: Literal["conv1d", "conv2d", "conv3d"]
    groups: Positive = Field(1, description="Groups of channels; must divide both widths.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Conv1d, 2d or 3d."""
        return Call(
            f"nn.Conv{self.dims}d",
            {
                "in_channels": shapes[0][0],
                "out_channels": self.width(classes),
                **self._window(),
                "groups": self.groups,
                "bias": self.bias,
            },
        )


class ConvTranspose(_Window, Wide):
    """Transposed convolution: makes its input larger."""

    layer: Literal["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
    padding: CountSizes = Field(0, description="Taken from each side of the output, pixels.")
    output_padding: CountSizes = Field(0, description="Added at one side of the output, pixels.")
    groups: Positive = Field(1, description="Groups of channels; must divide both widths.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.ConvTranspose1d, 2d or 3d."""
        return Call(
            f"nn.ConvTranspose{self.dims}d",
            {
                "in_channels": shapes[0][0],
                "out_channels": self.width(classes),
                **self._window(),
                "output_padding": self.output_padding,
                "groups": self.groups,
                "bias": self.bias,
            },
        )


class DepthwiseConv2d(_Padded):
    """A convolution of each channel by itself."""

    layer: Literal["depthwise_conv2d"]
    depth_multiplier: Positive = Field(1, description="Output channels for each input channel.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Conv2d with as many groups as channels."""
        channels = shapes[0][0]
        return Call(
            "nn.Conv2d",
            {
                "in_channels": channels,
                "out_channels": channels * self.depth_multiplier,
                **self._window(),
                "groups": channels,
                "bias": self.bias,
            },
        )


class SeparableConv(_Padded, Wide):
    """A convolution of each channel by itself, then one of size 1 over all channels."""

    layer: Literal["separable_conv1d", "separable_conv2d"]
    depth_multiplier: Positive = Field(1, description="Channels between, for each input channel.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the two convolutions as one module: `depthwise` and `pointwise`."""
        return Call(
            "own_modules.SeparableConv",
            {
                "kind": f"Conv{self.dims}d",
                "in_channels": shapes[0][0],
                "out_channels": self.width(classes),
                "depth_multiplier": self.depth_multiplier,
                "bias": self.bias,
                **self._window(),
            },
        )
