"""Recurrent layers, batch first: they read a sequence (N, length, features) and return one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tlcompile.recipe.fields import Positive, Probability
from tlcompile.recipe.layers.base import Biased, Call, Shape


class _Recurrent(Biased):
    inherits_activation: ClassVar[bool] = False
    wants: ClassVar[str] = "a sequence (N, length, features)"
    advice: ClassVar[str] = "put an embedding, a permute or a reshape before it"

    hidden_size: Positive = Field(description="Features of each direction.")
    num_layers: Positive = Field(1, description="Layers, each reading the one below.")
    bidirectional: bool = Field(
        False, description="Whether a second one reads from the end; their features side by side."
    )
    layer_dropout: Probability = Field(
        0.0, description="Drop probability between the layers (torch's `dropout` of nn.LSTM)."
    )

    @model_validator(mode="after")
    def _dropout_needs_layers(self) -> Self:
        if self.layer_dropout and self.num_layers == 1:
            raise ValueError("layer_dropout has no effect on one layer | write num_layers: 2")
        return self

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Ask for a sequence."""
        return len(shapes[0]) == 2

    def _settings(self, shape: Shape) -> dict[str, Any]:
        return {
            "input_size": shape[-1],
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            "batch_first": True,
            "dropout": self.layer_dropout,
            "bidirectional": self.bidirectional,
        }


class Rnn(_Recurrent):
    """Elman's recurrent layer."""

    layer: Literal["rnn"]
    nonlinearity: Literal["tanh", "relu"] = Field("tanh", description="Of the hidden state.")

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.RNN, the sequence alone."""
        kwargs = {**self._settings(shapes[0]), "nonlinearity": self.nonlinearity}
        return Call("own_modules.RNN", kwargs)


class Gated(_Recurrent):
    """Long short-term memory, or gated recurrent units."""

    layer: Literal["lstm", "gru"]

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return torch.nn.LSTM or torch.nn.GRU, the sequence alone."""
        return Call(f"own_modules.{self.layer.upper()}", self._settings(shapes[0]))
