"""The same values in another shape, more of them, or fewer. No weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict, model_validator

from tlcompile.recipe.fields import Count, Positive, Sizes
from tlcompile.recipe.layers.base import Call, Layer, Shape, sizes_fit, spatial_dims

_CHANNELS = "(N, channels, length), a map (N, channels, height, width) or a volume"
_SEQUENCE = "a sequence (N, length, features)"
_READ = "read another vertex; `tlcompile plan` shows the shape of each"

# One number for all sides, or two a dimension, the last dimension first: left, right, top, bottom.
Sides = Count | Annotated[tuple[Count, ...], Strict(False), Field(min_length=2, max_length=6)]


class Flatten(Layer):
    """All dimensions of a sample as one."""

    layer: Literal["flatten"]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Flatten."""
        return Call("nn.Flatten", {})


class Reshape(Layer):
    """A sample in another shape; -1 for one size."""

    wants: ClassVar[str] = "as many values as the new shape holds"
    advice: ClassVar[str] = "write -1 for one of the sizes"

    layer: Literal["reshape"]
    shape: Annotated[tuple[int, ...], Strict(False)] = Field(description="Sizes behind the batch.")

    @model_validator(mode="after")
    def _sizes_are_sizes(self) -> Reshape:
        if self.shape.count(-1) > 1 or any(size < 1 and size != -1 for size in self.shape):
            raise ValueError("sizes are at least 1, and one of them may be -1 | shape: [-1]")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for as many values."""
        known = prod(size for size in self.shape if size != -1)
        values = prod(shapes[0])
        return values % known == 0 if -1 in self.shape else values == known

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call("own.reshape", {"shape": self.shape})


class Permute(Layer):
    """The dimensions of a sample in another order: [2, 1] exchanges channels and length."""

    wants: ClassVar[str] = "as many dimensions behind the batch as dims names"
    advice: ClassVar[str] = _READ

    layer: Literal["permute"]
    dims: Annotated[tuple[Positive, ...], Strict(False)] = Field(
        description="The dimensions behind the batch in their new order, counted from 1."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Permute:
        wanted = list(range(1, len(self.dims) + 1))
        if sorted(self.dims) != wanted:
            raise ValueError(f"dims names each of {wanted} once; 0 is the batch | dims: {wanted}")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for as many dimensions."""
        return len(shapes[0]) == len(self.dims)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.permute."""
        return Call("permute", {"dims": (0, *self.dims)})


class Pad(Layer):
    """Values added at the sides of every dimension behind the channels."""

    wants: ClassVar[str] = f"{_CHANNELS}, and two sides a dimension"
    advice: ClassVar[str] = (
        "write padding: 1, or two numbers for each dimension behind the channels"
    )

    layer: Literal["pad"]
    padding: Sides = Field(description="Pixels; one number, or [left, right, top, bottom, ...].")
    mode: Literal["constant", "reflect", "replicate", "circular"] = Field(
        "constant", description="What is added."
    )
    value: float = Field(0.0, description="Of mode: constant.")

    @model_validator(mode="after")
    def _value_needs_constant(self) -> Pad:
        if self.value and self.mode != "constant":
            raise ValueError(f"value has no effect with mode: {self.mode} | drop value")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and sides for each dimension behind them."""
        return _sides_fit(self.padding, spatial_dims(shapes[0]))

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.functional.pad."""
        kwargs: dict[str, Any] = {
            "pad": _sides(self.padding, spatial_dims(shapes[0])),
            "mode": self.mode,
        }
        return Call(
            "nn.functional.pad", kwargs | ({"value": self.value} if self.mode == "constant" else {})
        )


class Crop(Layer):
    """Values taken away at the sides of every dimension behind the channels."""

    wants: ClassVar[str] = (
        f"{_CHANNELS} that is larger than what is taken, and two sides a dimension"
    )
    advice: ClassVar[str] = "write crop: 1, or two numbers for each dimension behind the channels"

    layer: Literal["crop"]
    crop: Sides = Field(description="Pixels; one number, or [left, right, top, bottom, ...].")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and for something that is left in each dimension behind them."""
        dims = spatial_dims(shapes[0])
        if not _sides_fit(self.crop, dims):
            return False
        sides = _sides(self.crop, dims)
        taken = [first + last for first, last in zip(sides[::2], sides[1::2], strict=True)]
        return all(size > t for size, t in zip(reversed(shapes[0]), taken, strict=False))

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.functional.pad by less than nothing."""
        sides = _sides(self.crop, spatial_dims(shapes[0]))
        return Call("nn.functional.pad", {"pad": tuple(-side for side in sides)})


class Upsample(Layer):
    """A larger sequence, map or volume."""

    wants: ClassVar[str] = (
        f"{_CHANNELS}; linear, bilinear and bicubic, trilinear: 1, 2, 3 dimensions"
    )
    advice: ClassVar[str] = "write mode: nearest, which takes any number of dimensions"

    layer: Literal["upsample"]
    scale_factor: Sizes | None = Field(None, description="How many times as large.")
    size: Sizes | None = Field(None, description="Or the size of the output, pixels.")
    mode: Literal["nearest", "linear", "bilinear", "bicubic", "trilinear"] = Field(
        "nearest", description="How values between are found."
    )
    align_corners: bool | None = Field(
        None, description="Whether corners stay in place; not for nearest. Default: no."
    )

    @model_validator(mode="after")
    def _one_size(self) -> Upsample:
        if (self.size is None) == (self.scale_factor is None):
            raise ValueError("name exactly one of scale_factor and size | scale_factor: 2")
        if self.align_corners is not None and self.mode == "nearest":
            raise ValueError("align_corners has no effect with mode: nearest | drop align_corners")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and the dimensions of the mode."""
        dims = spatial_dims(shapes[0])
        wanted = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}.get(self.mode, dims)
        return 1 <= dims <= 3 and dims == wanted and sizes_fit(dims, self.size, self.scale_factor)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Upsample."""
        kwargs = {
            "size": self.size,
            "scale_factor": self.scale_factor,
            "mode": self.mode,
            "align_corners": self.align_corners,
        }
        return Call("nn.Upsample", {k: v for k, v in kwargs.items() if v is not None})


class PixelShuffle(Layer):
    """Channels as pixels: a map `upscale_factor` times as high and wide."""

    wants: ClassVar[str] = "a map whose channels upscale_factor squared divides"
    advice: ClassVar[str] = "put a conv2d with a multiple of upscale_factor squared before it"

    layer: Literal["pixel_shuffle"]
    upscale_factor: Positive = Field(description="How many times as high and wide.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a map with enough channels."""
        return spatial_dims(shapes[0]) == 2 and shapes[0][0] % self.upscale_factor**2 == 0

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.PixelShuffle."""
        return Call("nn.PixelShuffle", {"upscale_factor": self.upscale_factor})


class PixelUnshuffle(Layer):
    """Pixels as channels: a map with `downscale_factor` squared times the channels."""

    wants: ClassVar[str] = "a map whose height and width downscale_factor divides"
    advice: ClassVar[str] = _READ

    layer: Literal["pixel_unshuffle"]
    downscale_factor: Positive = Field(description="By how much height and width shrink.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a map of a size that can be divided."""
        sides = shapes[0][1:]
        return len(sides) == 2 and all(side % self.downscale_factor == 0 for side in sides)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.PixelUnshuffle."""
        return Call("nn.PixelUnshuffle", {"downscale_factor": self.downscale_factor})


class LastStep(Layer):
    """The last step of a sequence."""

    wants: ClassVar[str] = _SEQUENCE
    advice: ClassVar[str] = _READ

    layer: Literal["last_step"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a sequence."""
        return len(shapes[0]) == 2

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.select along the length."""
        return Call("select", {"dim": 1, "index": -1})


class ReverseTime(Layer):
    """A sequence from its end to its beginning."""

    wants: ClassVar[str] = _SEQUENCE
    advice: ClassVar[str] = _READ

    layer: Literal["reverse_time"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a sequence."""
        return len(shapes[0]) == 2

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.flip along the length."""
        return Call("flip", {"dims": (1,)})


class Repeat(Layer):
    """Features at every step of a sequence: (N, features) as (N, length, features)."""

    num_inputs: ClassVar[tuple[int, int]] = (1, 2)
    wants: ClassVar[str] = (
        "(N, features) with times, or (N, features) and a sequence of that length"
    )
    advice: ClassVar[str] = "write times: 8, or read a second vertex (N, length, features)"

    layer: Literal["repeat"]
    times: Positive | None = Field(
        None, description="Steps; without it, as many as the second input has."
    )

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for features, and for one source of the length."""
        lengths = [len(shape) for shape in shapes]
        return lengths == ([1] if self.times is not None else [1, 2])

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return a function of graph/functions.py."""
        if self.times is None:
            return Call("own.repeat_like", {})
        return Call("own.repeat", {"times": self.times})


def _sides_fit(sides: int | tuple[int, ...], dims: int) -> bool:
    return 1 <= dims <= 3 and (isinstance(sides, int) or len(sides) == 2 * dims)


def _sides(sides: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (sides,) * (2 * dims) if isinstance(sides, int) else sides
