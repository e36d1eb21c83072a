"""Activations as vertices of their own; behind a layer, its key `activation` is enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import Activation
from tlcompile.recipe.layers.base import Call, Layer, Shape

_CLASSES = {
    "relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU", "elu": "ELU", "selu": "SELU",
    "celu": "CELU", "gelu": "GELU", "silu": "SiLU", "mish": "Mish", "softplus": "Softplus",
    "hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "hardtanh": "Hardtanh", "tanh": "Tanh",
    "sigmoid": "Sigmoid", "logsigmoid": "LogSigmoid", "softsign": "Softsign", "rrelu": "RReLU",
    "tanhshrink": "Tanhshrink", "softshrink": "Softshrink", "hardshrink": "Hardshrink",
    "softmax": "Softmax", "log_softmax": "LogSoftmax", "identity": "Identity",
}  # fmt: skip

# Settings in torch's words, and the activations that have them.
_SETTINGS = {
    "negative_slope": ("leaky_relu",),
    "alpha": ("elu", "celu"),
    "beta": ("softplus",),
    "lambd": ("softshrink", "hardshrink"),
    "dim": ("softmax", "log_softmax"),
}


class ActivationLayer(Layer):
    """An activation as a vertex of its own."""

    wants: ClassVar[str] = "an input that has the dimension `dim`"
    advice: ClassVar[str] = "write dim: 1 for channels, dim: -1 for features"

    layer: Literal["activation"]
    name: Activation = Field(description="Which one, in torch's words.")
    negative_slope: float | None = Field(None, description="Of leaky_relu; default 0.01.")
    alpha: float | None = Field(None, description="Of elu and celu; default 1.")
    beta: float | None = Field(None, description="Of softplus; default 1.")
    lambd: float | None = Field(None, description="Of softshrink and hardshrink; default 0.5.")
    dim: int | None = Field(
        None, description="Of softmax and log_softmax, the batch being 0; default 1."
    )

    @model_validator(mode="after")
    def _has_its_settings(self) -> ActivationLayer:
        for setting, owners in _SETTINGS.items():
            if getattr(self, setting) is not None and self.name not in owners:
                raise ValueError(f"{self.name} has no {setting} | drop {setting}")
        if self.dim == 0:
            raise ValueError("dim: 0 is the batch, whose samples never mix | write dim: 1")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for the dimension that softmax is over."""
        dims = len(shapes[0])
        return self.dim is None or self.dim in (*range(-dims, 0), *range(1, dims + 1))

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the class of torch.nn."""
        given = {s: getattr(self, s) for s in _SETTINGS if getattr(self, s) is not None}
        call = activation_call(self.name)
        return Call(call.name, {**call.kwargs, **given})


class PRelu(Layer):
    """A leaky relu that learns its negative slope."""

    wants: ClassVar[str] = "channels or features in dimension 1"

    layer: Literal["prelu"]
    per_channel: bool = Field(False, description="A slope for each channel instead of one for all.")
    slope: float = Field(0.25, description="Negative slope at the start.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a dimension behind the batch."""
        return bool(shapes[0])

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.PReLU."""
        channels = shapes[0][0] if self.per_channel else 1
        return Call("nn.PReLU", {"num_parameters": channels, "init": self.slope})


def activation_call(name: str, dim: int = 1) -> Call:
    """Return the class of torch.nn that an activation's name stands for; `dim` is softmax's."""
    kwargs: dict[str, Any] = {"dim": dim} if "softmax" in name else {}
    return Call(f"nn.{_CLASSES[name]}", kwargs)
