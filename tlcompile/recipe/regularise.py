"""What keeps weights small, smooth or within bounds: penalties, clipping, constraints, averages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import (
    Fraction,
    NotNegative,
    Positive,
    Probability,
    Rate,
    Section,
)

# Those of one tensor, without random numbers and without a dimension of their own.
HiddenActivation = Literal[
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "hardswish", "hardsigmoid", "hardtanh", "hardshrink", "softshrink", "tanhshrink", "tanh",
    "sigmoid", "logsigmoid", "softsign", "identity",
]  # fmt: skip
Share = Annotated[float, Field(gt=0, le=1)]

L1 = "Factor of sum |w| in the loss; weights, not biases and norms."
L2 = "Factor of half of sum w^2 in the loss; weights, not biases and norms."
L1_BIAS = "As l1, of biases of layers with a weight."
L2_BIAS = "As l2, of biases of layers with a weight."


class Clip(Section):
    """Limit gradients before each step."""

    norm: Rate | None = Field(None, description="Largest L2 norm; longer gradients are scaled.")
    per: Literal["model", "layer", "parameter"] = Field(
        "model", description="Whose norm: all gradients together, a layer's, or a parameter's."
    )
    value: Rate | None = Field(None, description="Largest absolute value of each number instead.")

    @model_validator(mode="after")
    def _one_limit(self) -> Clip:
        if (self.norm is None) == (self.value is None):
            raise ValueError("name exactly one of norm and value | write norm: 1.0")
        if self.value is not None and self.per != "model":
            raise ValueError("per has no effect on value: each number counts alone | drop per")
        return self


class MinMaxNorm(Section):
    """Bounds of the norm of each unit's incoming weights."""

    min: NotNegative = Field(0.0, description="Smallest L2 norm.")
    max: Rate = Field(description="Largest L2 norm.")
    rate: Share = Field(1.0, description="How much of the way to the bound a step goes.")

    @model_validator(mode="after")
    def _in_order(self) -> MinMaxNorm:
        if self.min > self.max:
            raise ValueError("min is above max | exchange the two")
        return self


class Constraints(Section):
    """What holds after every step: of each unit's incoming weights, or of each number."""

    max_norm: Rate | None = Field(None, description="Largest L2 norm of a unit's weights.")
    unit_norm: bool = Field(False, description="Whether every unit's weights have L2 norm 1.")
    min_max_norm: MinMaxNorm | None = Field(None, description="Both bounds of the L2 norm.")
    non_negative: bool = Field(False, description="Whether numbers below zero become zero.")
    biases: bool = Field(False, description="Of biases, too; each bias vector has one norm.")

    @model_validator(mode="after")
    def _fit_together(self) -> Constraints:
        norms = [self.max_norm is not None, self.unit_norm, self.min_max_norm is not None]
        if sum(norms) > 1:
            raise ValueError(
                "name one of max_norm, unit_norm and min_max_norm: one norm has one rule "
                "| drop the others"
            )
        if self.biases and not (any(norms) or self.non_negative):
            raise ValueError("biases has no effect without a constraint | write max_norm: 3.0")
        return self

    def __bool__(self) -> bool:
        """Tell whether it asks for anything; an empty one clears what is inherited."""
        return bool(
            self.max_norm is not None or self.unit_norm or self.min_max_norm or self.non_negative
        )


class Swa(Section):
    """Equal average of the weights at the ends of epochs."""

    start: Positive = Field(
        description="First epoch that counts, of each phase, from 1; before it, nothing is averaged."
    )


class Average(Section):
    """Average the weights; validation and the best weights are those of the average."""

    ema: Fraction | None = Field(
        None, description="Share of the old average that each step keeps: 0.999."
    )
    warmup: bool = Field(
        False, description="Whether ema begins low: min(ema, (1 + steps) / (10 + steps))."
    )
    swa: Swa | None = Field(
        None, description="Over epochs instead; batch norms get statistics of their own."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Average:
        if (self.ema is None) == (self.swa is None):
            raise ValueError("name exactly one of ema and swa | write ema: 0.999")
        if self.swa is not None and self.warmup:
            raise ValueError("warmup has no effect on swa | drop warmup")
        return self


class Override(Section):
    """Settings of the base's own layers, wherever they train in any phase; frozen ones stay."""

    dropout: Probability | Literal["none"] | None = Field(
        None, description="Drop probability of its dropouts; none: off."
    )
    activation: HiddenActivation | None = Field(
        None,
        description="In the place of its activations; gates, softmax and what follows the classifier "
        "stay.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Override:
        if self.dropout is None and self.activation is None:
            raise ValueError("override is empty | write dropout: 0.3, or drop the section")
        return self


class Regularisation(Section):
    """The part of `fine_tune` that regularises."""

    l1: NotNegative = Field(0.0, description=L1)
    l2: NotNegative = Field(0.0, description=f"{L2} Decoupled: adamw's weight_decay.")
    l1_bias: NotNegative = Field(0.0, description=L1_BIAS)
    l2_bias: NotNegative = Field(0.0, description=L2_BIAS)
    clip: Clip | None = Field(None, description="Limit gradients; `clip: 1.0` is {norm: 1.0}.")
    renormalise: Literal["model", "layer", "parameter"] | None = Field(
        None, description="Divide gradients by their L2 norm, whatever it is; of whom."
    )
    constraints: Constraints | None = Field(
        None, description="What holds of weights after every step."
    )
    average: Average | None = Field(
        None, description="Judge by, and keep, averaged weights; default: the last ones."
    )
    override: Override | None = Field(
        None, description="Other settings for layers of the base that train."
    )

    @model_validator(mode="after")
    def _nothing_idle(self) -> Regularisation:
        if self.clip is not None and self.renormalise is not None:
            raise ValueError(
                "clip stands beside renormalise, which gives every gradient its norm "
                "| drop one of the two"
            )
        if self.constraints is not None and not self.constraints:
            raise ValueError("constraints is empty | write max_norm: 3.0, or drop the section")
        return self
