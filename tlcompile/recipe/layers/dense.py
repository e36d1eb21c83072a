"""Layers over features: linear, bilinear, embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import Count, Positive
from tlcompile.recipe.layers.base import Call, Parametric, Shape, Wide


class Linear(Wide):
    """Fully connected layer."""

    wants: ClassVar[str] = "(N, features) or tokens (N, length, features)"

    layer: Literal["linear"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Refuse a map, whose last dimension would be taken silently."""
        return len(shapes[0]) in (1, 2)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Linear."""
        return Call(
            "nn.Linear",
            {"in_features": shapes[0][-1], "out_features": self.width(classes), "bias": self.bias},
        )


class Bilinear(Wide):
    """A weight for each pair of features of two inputs."""

    num_inputs: ClassVar[tuple[int, int]] = (2, 2)
    wants: ClassVar[str] = "two inputs (N, features)"

    layer: Literal["bilinear"]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for features."""
        return all(len(shape) == 1 for shape in shapes)

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Bilinear."""
        kwargs = {
            "in1_features": shapes[0][-1],
            "in2_features": shapes[1][-1],
            "out_features": self.width(classes),
            "bias": self.bias,
        }
        return Call("nn.Bilinear", kwargs)


class Embedding(Parametric):
    """A vector of weights for each whole number."""

    inherits_activation: ClassVar[bool] = False
    reads_integers: ClassVar[bool] = True
    wants: ClassVar[str] = "whole numbers (N,) or (N, length), of dtype int64"
    advice: ClassVar[str] = "read an input, inputs: {tokens: {shape: [12], dtype: int64}}"

    layer: Literal["embedding"]
    num_embeddings: Positive = Field(description="Whole numbers that there are: 0 to this, less 1.")
    out: Positive = Field(description="Length of each vector.")
    padding_idx: Count | None = Field(
        None, description="The number whose vector is zero and does not learn."
    )

    @model_validator(mode="after")
    def _padding_is_there(self) -> Embedding:
        if self.padding_idx is not None and self.padding_idx >= self.num_embeddings:
            last = self.num_embeddings - 1
            raise ValueError(f"padding_idx is above the last number {last} | padding_idx: {last}")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for one number or a sequence."""
        return len(shapes[0]) <= 1

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.Embedding."""
        kwargs = {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.out,
            "padding_idx": self.padding_idx,
        }
        return Call("nn.Embedding", kwargs)
