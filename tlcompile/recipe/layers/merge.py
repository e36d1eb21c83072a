"""Several inputs made one, parts of one input, and constants: the vertices without weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import Count, NotNegative, Positive
from tlcompile.recipe.layers.base import Call, Layer, Shape

_SAME = "read vertices of one shape; `tlcompile plan` shows shapes"

# The batch is 0; -1 is the last one.
Dim = Annotated[int, Field(ge=-4, le=4)]


class Concat(Layer):
    """Inputs side by side, along the channels unless told otherwise."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 64)
    wants: ClassVar[str] = "inputs equal in all dimensions but the one they are joined along"
    advice: ClassVar[str] = _SAME

    layer: Literal["concat"]
    dim: Dim = Field(1, description="Along which, the batch being 0; -1: features of tokens.")

    @model_validator(mode="after")
    def _not_the_batch(self) -> Concat:
        if self.dim == 0:
            raise ValueError("dim: 0 is the batch; `stack` joins along it | write dim: 1")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for equal shapes but for one dimension."""
        dims = len(shapes[0])
        at = self.dim - 1 if self.dim > 0 else self.dim + dims
        rests = {(*shape[:at], "*", *shape[at + 1 :]) for shape in shapes}
        return 0 <= at < dims and len(rests) == 1

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.cat."""
        return Call("cat", {"dim": self.dim}, as_list=True)


class Elementwise(Layer):
    """Inputs of one shape combined value by value."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 64)
    wants: ClassVar[str] = "inputs of one shape; two of them for `subtract`"
    advice: ClassVar[str] = _SAME

    layer: Literal["add", "subtract", "multiply", "average", "maximum"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one shape; subtract takes exactly two inputs."""
        return len(set(shapes)) == 1 and (self.layer != "subtract" or len(shapes) == 2)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call(f"own.{self.layer}", {}, as_list=True)


class PairwiseDistance(Layer):
    """The distance of two inputs, sample by sample: (N, 1)."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 2)
    wants: ClassVar[str] = "two inputs of one shape"
    advice: ClassVar[str] = _SAME

    layer: Literal["pairwise_distance"]
    p: Annotated[float, Field(ge=1, le=100)] = Field(2.0, description="Norm; 2: Euclidean.")
    eps: NotNegative = Field(1e-6, description="Added to each difference.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one shape."""
        return shapes[0] == shapes[1]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call("own.pairwise_distance", {"p": self.p, "eps": self.eps})


class DotProduct(Layer):
    """The sum of products of two inputs, sample by sample: (N, 1)."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 2)
    wants: ClassVar[str] = "two inputs of one shape"
    advice: ClassVar[str] = _SAME

    layer: Literal["dot_product"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one shape."""
        return shapes[0] == shapes[1]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call("own.dot_product", {})


class Stack(Layer):
    """The samples of several inputs below each other, for one layer that reads them all."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 64)
    wants: ClassVar[str] = "inputs of one shape"
    advice: ClassVar[str] = _SAME

    layer: Literal["stack"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one shape."""
        return len(set(shapes)) == 1

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.cat along the batch."""
        return Call("cat", {"dim": 0}, as_list=True)


class Unstack(Layer):
    """The samples of one of the inputs that `stack` put below each other."""

    wants: ClassVar[str] = "what comes from a `stack` of `num` inputs"

    layer: Literal["unstack"]
    index: Count = Field(description="Which of them, counted from 0.")
    num: Positive = Field(description="How many there are.")

    @model_validator(mode="after")
    def _is_there(self) -> Unstack:
        if self.index >= self.num:
            raise ValueError(f"index is above the last, {self.num - 1} | index: {self.num - 1}")
        return self

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call("own.unstack", {"index": self.index, "num": self.num})


class Subset(Layer):
    """Channels `first` to `last`, both included, counted from 0."""

    wants: ClassVar[str] = "an input with at least `last` + 1 channels"
    advice: ClassVar[str] = "count channels from 0, with first <= last"

    layer: Literal["subset"]
    first: Count = Field(description="First channel.")
    last: Count = Field(description="Last channel, included.")

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for channels that exist."""
        return bool(shapes[0]) and self.first <= self.last < shapes[0][0]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.narrow along dimension 1."""
        length = self.last - self.first + 1
        return Call("narrow", {"dim": 1, "start": self.first, "length": length})


class Affine(Layer):
    """Multiply by a constant, or add one."""

    layer: Literal["scale", "shift"]
    by: float = Field(description="The constant.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return the function of graph/functions.py."""
        return Call(f"own.{self.layer}", {"by": self.by})
