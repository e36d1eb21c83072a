"""The closed vocabulary of `add`: one class a layer type, as data. Knows nothing of torch.

To add a layer type, write one class here, name it in `AnyLayer`, and add a row to
tests/recipe/test_layers.py. `call` names a class or function of torch by a word in this file,
never by a word from a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Strict

from tlcompile.recipe.fields import (
    Activation,
    Count,
    CountPair,
    Init,
    Names,
    NotNegative,
    Pair,
    Positive,
    Probability,
    Section,
    Width,
)

Shape = tuple[int, ...]  # of one sample, without the batch


@dataclass(frozen=True)
class Call:
    """What a layer type becomes: `torch.nn.<name>(**kwargs)`, or a function called on the inputs.

    Attributes:
        name: Dotted from torch ("nn.Linear", "flatten"), or "own.<function>" of graph/functions.py.
        kwargs: Its keyword arguments.
        as_list: Whether the inputs are passed as one list (torch.cat).
    """

    name: str
    kwargs: dict[str, Any]
    as_list: bool = False


class Layer(Section):
    """What all layer types share."""

    num_inputs: ClassVar[tuple[int, int]] = (1, 1)
    wants: ClassVar[str] = "any shape"

    inputs: Names = Field(
        (), description="Vertices that it reads; several are concatenated only by `concat`."
    )
    feeds: Names = Field((), description="Kept readers of its input that read this layer instead.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Tell whether these input shapes fit."""
        return True

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return what it becomes, given its input shapes and the number of logits of the task."""
        raise NotImplementedError


class Parametric(Layer):
    """A layer with weights. It is a region: layer, then norm, activation, dropout."""

    norm: Literal["batch", "layer"] | None = Field(None, description="Normalisation behind it.")
    activation: Activation | None = Field(
        None, description="Default: fine_tune.activation, not on outputs."
    )
    dropout: Probability | None = Field(
        None, description="Drop probability behind it; default: fine_tune.dropout."
    )
    init: Init | None = Field(
        None, description="Of the weight, by torch.nn.init; default: fine_tune.init."
    )
    bias: bool = Field(True, description="Whether it has a bias.")

    def width(self, classes: int) -> int:
        """Return the output width."""
        raise NotImplementedError


class Linear(Parametric):
    """Fully connected layer."""

    wants: ClassVar[str] = "(N, features) or tokens (N, length, features)"

    layer: Literal["linear"]
    out: Width = Field(description="Output width, or `classes`: as many logits as the task needs.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Refuse a map, whose last dimension would be taken silently."""
        return len(shapes[0]) in (1, 2)

    def width(self, classes: int) -> int:
        """Return the output width."""
        return classes if self.out == "classes" else int(self.out)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Linear."""
        return Call(
            "nn.Linear",
            {"in_features": shapes[0][-1], "out_features": self.width(classes), "bias": self.bias},
        )


class Conv2d(Parametric):
    """Convolution over maps (N, channels, height, width)."""

    wants: ClassVar[str] = "a map (N, channels, height, width)"

    layer: Literal["conv2d"]
    out: Width = Field(description="Output channels, or `classes`.")
    kernel: Pair = Field(3, description="Kernel size, pixels.")
    stride: Pair = Field(1, description="Step, pixels.")
    padding: CountPair | Literal["same"] = Field(0, description="Zeros at each side, pixels.")
    dilation: Pair = Field(1, description="Distance between kernel points, pixels.")
    groups: Positive = Field(1, description="Groups of channels; must divide both widths.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a map whose channels the groups divide."""
        return len(shapes[0]) == 3 and shapes[0][0] % self.groups == 0

    def width(self, classes: int) -> int:
        """Return the output channels."""
        return classes if self.out == "classes" else int(self.out)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Conv2d."""
        return Call(
            "nn.Conv2d",
            {
                "in_channels": shapes[0][0],
                "out_channels": self.width(classes),
                "kernel_size": self.kernel,
                "stride": self.stride,
                "padding": self.padding,
                "dilation": self.dilation,
                "groups": self.groups,
                "bias": self.bias,
            },
        )


class BatchNorm(Layer):
    """Batch normalisation of features, sequences or maps."""

    wants: ClassVar[str] = "(N, channels), (N, channels, length) or a map"

    layer: Literal["batch_norm"]
    eps: NotNegative = Field(1e-5, description="Added to the variance.")
    momentum: Probability = Field(0.1, description="Weight of the newest batch in the statistics.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one, two or three dimensions."""
        return len(shapes[0]) in (1, 2, 3)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.BatchNorm1d or 2d."""
        kind = "nn.BatchNorm2d" if len(shapes[0]) == 3 else "nn.BatchNorm1d"
        kwargs = {"num_features": shapes[0][0], "eps": self.eps, "momentum": self.momentum}
        return Call(kind, kwargs)


class LayerNorm(Layer):
    """Layer normalisation over the last dimension."""

    wants: ClassVar[str] = "(N, features) or tokens (N, length, features)"

    layer: Literal["layer_norm"]
    eps: NotNegative = Field(1e-5, description="Added to the variance.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Refuse a map, whose last dimension is its width in pixels."""
        return len(shapes[0]) in (1, 2)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.LayerNorm."""
        return Call("nn.LayerNorm", {"normalized_shape": shapes[0][-1], "eps": self.eps})


class Dropout(Layer):
    """Zero single values at random while training."""

    layer: Literal["dropout"]
    p: Probability = Field(0.5, description="Drop probability.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Dropout."""
        return Call("nn.Dropout", {"p": self.p})


class ActivationLayer(Layer):
    """An activation as a vertex of its own."""

    layer: Literal["activation"]
    name: Activation = Field(description="Which one, in torch's words.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the class of torch.nn."""
        return activation_call(self.name)


class Pool(Layer):
    """Max or average pooling over maps."""

    wants: ClassVar[str] = "a map (N, channels, height, width)"

    layer: Literal["max_pool", "avg_pool"]
    kernel: Pair = Field(2, description="Window, pixels.")
    stride: Pair | None = Field(None, description="Step, pixels; default: the kernel.")
    padding: CountPair = Field(0, description="Border, pixels.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a map."""
        return len(shapes[0]) == 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.MaxPool2d or AvgPool2d."""
        kind = "nn.MaxPool2d" if self.layer == "max_pool" else "nn.AvgPool2d"
        kwargs = {"kernel_size": self.kernel, "stride": self.stride, "padding": self.padding}
        return Call(kind, kwargs)


class GlobalPool(Layer):
    """One value a channel: the mean or the maximum over all positions of a map."""

    wants: ClassVar[str] = "a map (N, channels, height, width)"

    layer: Literal["global_pool"]
    kind: Literal["avg", "max"] = Field("avg", description="Mean or maximum.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a map."""
        return len(shapes[0]) == 3

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.AdaptiveAvgPool2d(1) or AdaptiveMaxPool2d(1)."""
        kind = "nn.AdaptiveAvgPool2d" if self.kind == "avg" else "nn.AdaptiveMaxPool2d"
        return Call(kind, {"output_size": 1})


class Flatten(Layer):
    """All dimensions of a sample as one."""

    layer: Literal["flatten"]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Flatten."""
        return Call("nn.Flatten", {})


class Concat(Layer):
    """Inputs side by side along the channels."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 64)
    wants: ClassVar[str] = "inputs equal in all but the first dimension"

    layer: Literal["concat"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for equal shapes behind the channels."""
        return len({shape[1:] for shape in shapes}) == 1

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.cat along dimension 1."""
        return Call("cat", {"dim": 1}, as_list=True)


class Elementwise(Layer):
    """Inputs of one shape combined value by value."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 64)
    wants: ClassVar[str] = "inputs of one shape"

    layer: Literal["add", "subtract", "multiply", "average", "maximum"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one shape; subtract takes exactly two inputs."""
        return len(set(shapes)) == 1 and (self.layer != "subtract" or len(shapes) == 2)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call(f"own.{self.layer}", {}, as_list=True)


class Affine(Layer):
    """Multiply by a constant, or add one."""

    layer: Literal["scale", "shift"]
    by: float = Field(description="The constant.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call(f"own.{self.layer}", {"by": self.by})


class L2Normalise(Layer):
    """Each sample's channels divided by their Euclidean norm."""

    layer: Literal["l2_normalise"]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.functional.normalize."""
        return Call("nn.functional.normalize", {"dim": 1})


class Reshape(Layer):
    """A sample in another shape; -1 for one size."""

    layer: Literal["reshape"]
    shape: Annotated[tuple[int, ...], Strict(False)] = Field(description="Sizes behind the batch.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Unflatten of the flattened sample."""
        return Call("own.reshape", {"shape": self.shape})


class Subset(Layer):
    """Channels `first` to `last`, both included, counted from 0."""

    wants: ClassVar[str] = "an input with at least `last` + 1 channels"

    layer: Literal["subset"]
    first: Count = Field(description="First channel.")
    last: Count = Field(description="Last channel, included.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels that exist."""
        return self.first <= self.last < shapes[0][0]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.narrow along dimension 1."""
        length = self.last - self.first + 1
        return Call("narrow", {"dim": 1, "start": self.first, "length": length})


AnyLayer = Annotated[
    Linear
    | Conv2d
    | BatchNorm
    | LayerNorm
    | Dropout
    | ActivationLayer
    | Pool
    | GlobalPool
    | Flatten
    | Concat
    | Elementwise
    | Affine
    | L2Normalise
    | Reshape
    | Subset,
    Field(discriminator="layer"),
]

_ACTIVATIONS = {
    "relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU", "elu": "ELU", "selu": "SELU",
    "celu": "CELU", "gelu": "GELU", "silu": "SiLU", "mish": "Mish", "softplus": "Softplus",
    "hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "hardtanh": "Hardtanh", "tanh": "Tanh",
    "sigmoid": "Sigmoid", "softmax": "Softmax", "log_softmax": "LogSoftmax", "identity": "Identity",
}  # fmt: skip


def activation_call(name: str) -> Call:
    """Return the class of torch.nn that an activation's name stands for."""
    return Call(f"nn.{_ACTIVATIONS[name]}", {"dim": 1} if "softmax" in name else {})
