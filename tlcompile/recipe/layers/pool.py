"""Poolings along length, height and width, or volumes; as many as the input's shape has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import CountSizes, Sizes
from tlcompile.recipe.layers.base import Call, Layer, Shape, sizes_fit, spatial_dims

_CHANNELS = "(N, channels, length), a map (N, channels, height, width) or a volume"
_ADVICE = "read a vertex with channels and positions; `tlcompile plan` shows shapes"

Exponent = Annotated[float, Field(ge=1, le=100)]


class _Pool(Layer):
    """A window that moves along every dimension behind the channels."""

    wants: ClassVar[str] = f"{_CHANNELS}, and one number a dimension where a list is given"
    advice: ClassVar[str] = _ADVICE

    kernel: Sizes = Field(2, description="Window, pixels; one number, or one a dimension.")
    stride: Sizes | None = Field(None, description="Step, pixels; default: the kernel.")
    ceil_mode: bool = Field(False, description="Whether windows may hang over the end.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and one to three dimensions behind them."""
        dims = spatial_dims(shapes[0])
        padding = getattr(self, "padding", None)
        return 1 <= dims <= 3 and sizes_fit(dims, self.kernel, self.stride, padding)

    def _window(self) -> dict[str, Any]:
        return {"kernel_size": self.kernel, "stride": self.stride, "ceil_mode": self.ceil_mode}


class MaxPool(_Pool):
    """The largest value in each window."""

    layer: Literal["max_pool"]
    padding: CountSizes = Field(0, description="Border, pixels; at most half the kernel.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.MaxPool1d, 2d or 3d."""
        kwargs = {**self._window(), "padding": self.padding}
        return Call(f"nn.MaxPool{spatial_dims(shapes[0])}d", kwargs)


class AvgPool(_Pool):
    """The mean of each window."""

    layer: Literal["avg_pool"]
    padding: CountSizes = Field(0, description="Border of zeros, pixels; at most half the kernel.")
    count_include_pad: bool = Field(True, description="Whether zeros of the border count.")

    @model_validator(mode="after")
    def _pad_to_count(self) -> AvgPool:
        if not self.count_include_pad and not any(_numbers(self.padding)):
            raise ValueError(
                "count_include_pad has no effect without padding | drop count_include_pad"
            )
        return self

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.AvgPool1d, 2d or 3d."""
        kwargs = {
            **self._window(),
            "padding": self.padding,
            "count_include_pad": self.count_include_pad,
        }
        return Call(f"nn.AvgPool{spatial_dims(shapes[0])}d", kwargs)


class LpPool(_Pool):
    """The p-norm of each window; with norm_type 1 the sum."""

    layer: Literal["lp_pool"]
    norm_type: Exponent = Field(2.0, description="The p of the norm.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.LPPool1d, 2d or 3d."""
        kwargs = {**self._window(), "norm_type": self.norm_type}
        return Call(f"nn.LPPool{spatial_dims(shapes[0])}d", kwargs)


class AdaptivePool(Layer):
    """Pooling to a size, whatever the size of the input."""

    wants: ClassVar[str] = f"{_CHANNELS}, and one number a dimension where a list is given"
    advice: ClassVar[str] = _ADVICE

    layer: Literal["adaptive_avg_pool", "adaptive_max_pool"]
    output_size: Sizes = Field(
        description="Positions of the output; one number, or one a dimension."
    )

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and one to three dimensions behind them."""
        dims = spatial_dims(shapes[0])
        return 1 <= dims <= 3 and sizes_fit(dims, self.output_size)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.AdaptiveAvgPool1d .. 3d or AdaptiveMaxPool1d .. 3d."""
        kind = "Avg" if self.layer == "adaptive_avg_pool" else "Max"
        name = f"nn.Adaptive{kind}Pool{spatial_dims(shapes[0])}d"
        return Call(name, {"output_size": self.output_size})


class GlobalPool(Layer):
    """One value a channel over all positions of a sequence, map or volume; or of tokens."""

    wants: ClassVar[str] = f"{_CHANNELS}; with tokens: true (N, length, features)"
    advice: ClassVar[str] = _ADVICE

    layer: Literal["global_pool"]
    kind: Literal["avg", "max", "sum", "lp"] = Field("avg", description="Mean, maximum, sum, norm.")
    norm_type: Exponent = Field(2.0, description="The p of kind: lp.")
    tokens: bool = Field(
        False, description="Whether the input is (N, length, features); the output: (N, features)."
    )

    @model_validator(mode="after")
    def _norm_type_needs_lp(self) -> GlobalPool:
        if self.norm_type != 2.0 and self.kind != "lp":
            raise ValueError(f"norm_type has no effect with kind: {self.kind} | write kind: lp")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels, and one to three dimensions behind them; for tokens for exactly two."""
        return len(shapes[0]) == 2 if self.tokens else 1 <= spatial_dims(shapes[0]) <= 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.AdaptiveAvgPool2d(1) and its like, or a function of graph/functions.py."""
        if self.tokens or self.kind in ("sum", "lp"):
            kwargs = {"kind": self.kind, "norm_type": self.norm_type, "tokens": self.tokens}
            return Call("own.global_pool", kwargs)
        kind = "Avg" if self.kind == "avg" else "Max"
        return Call(f"nn.Adaptive{kind}Pool{spatial_dims(shapes[0])}d", {"output_size": 1})


def _numbers(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)
