"""Optimizers of torch.optim by name, with all options and torch's own defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, model_validator

from tlcompile.recipe.fields import NotNegative, Probability, Rate, Section

Betas = Annotated[
    tuple[Probability, Probability],
    Strict(False),
    Field(description="Decay of the running means of gradients and of their squares."),
]
Pair = Annotated[tuple[Rate, Rate], Strict(False)]
Three = Annotated[tuple[float, float, float], Strict(False)]
Momentum = Annotated[Probability, Field(description="Weight of the earlier steps.")]
Eps = Annotated[NotNegative, Field(description="Added to the denominator.")]
L2 = Annotated[NotNegative, Field(description="L2 penalty added to the gradient.")]
Decay = Annotated[NotNegative, Field(description="Share of each weight lost a step, x lr.")]
Amsgrad = Annotated[bool, Field(description="Keep the largest mean of squares so far.")]
Decoupled = Annotated[
    bool,
    Field(description="Whether weight_decay takes from the weights, as adamw, not from gradients."),
]


class _Optimizer(Section):
    lr: Rate | None = Field(
        None,
        description="Learning rate; default 1e-3 where only new layers train, else 1e-4 "
        "(adadelta: 1 and 0.1).",
    )

    def options(self) -> dict[str, Any]:
        """Return what is the optimizer's own, in torch's words."""
        return self.model_dump(exclude={"name", "lr", "others_lr"})


class Sgd(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: Momentum = 0.0
    dampening: Probability = Field(0.0, description="Share of the gradient kept from momentum.")
    nesterov: bool = Field(False, description="Look ahead; needs momentum.")
    weight_decay: L2 = 0.0

    @model_validator(mode="after")
    def _momentum_is_there(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0 | write momentum: 0.9")
        if self.nesterov and self.dampening:
            raise ValueError("nesterov: true needs dampening 0 | drop dampening")
        if self.dampening and not self.momentum:
            raise ValueError("dampening has no effect without momentum | drop dampening")
        return self


class Adam(_Optimizer):
    """Adam, with the penalty in the gradient."""

    name: Literal["adam"]
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: L2 = 0.0
    amsgrad: Amsgrad = False


class AdamW(_Optimizer):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: Decay = 0.01
    amsgrad: Amsgrad = False


class NAdam(_Optimizer):
    """Adam that looks ahead as Nesterov's momentum."""

    name: Literal["nadam"]
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: L2 = 0.0
    momentum_decay: NotNegative = Field(0.004, description="Decay of the momentum.")
    decoupled_weight_decay: Decoupled = False


class RAdam(_Optimizer):
    """Adam that corrects the variance of its first steps."""

    name: Literal["radam"]
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: L2 = 0.0
    decoupled_weight_decay: Decoupled = False


class Adamax(_Optimizer):
    """Adam with the largest gradient in place of the mean of squares."""

    name: Literal["adamax"]
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: L2 = 0.0


class RmsProp(_Optimizer):
    """RMSprop."""

    name: Literal["rmsprop"]
    alpha: Probability = Field(0.99, description="Decay of the running mean of squares.")
    momentum: Momentum = 0.0
    centered: bool = Field(False, description="Divide by the estimated variance instead.")
    eps: Eps = 1e-8
    weight_decay: L2 = 0.0


class Adagrad(_Optimizer):
    """Adagrad: divides by the root of the sum of all squares."""

    name: Literal["adagrad"]
    lr_decay: NotNegative = Field(0.0, description="The rate is divided by 1 + steps x lr_decay.")
    initial_accumulator_value: NotNegative = Field(0.0, description="Where the sum starts.")
    eps: Eps = 1e-10
    weight_decay: L2 = 0.0


class Adadelta(_Optimizer):
    """Adadelta: finds the size of its steps; the rate is a factor of them."""

    name: Literal["adadelta"]
    rho: Probability = Field(0.9, description="Decay of the running means of squares.")
    eps: Eps = 1e-6
    weight_decay: L2 = 0.0


class Asgd(_Optimizer):
    """SGD with decay, as for averages; to train with them, see `average`."""

    name: Literal["asgd"]
    lambd: NotNegative = Field(1e-4, description="Decay of the weights, x rate, a step.")
    alpha: NotNegative = Field(0.75, description="Power by which the rate decays.")
    weight_decay: L2 = 0.0


class Rprop(_Optimizer):
    """Resilient backpropagation: by the sign of each gradient; the rate is the first step's size."""

    name: Literal["rprop"]
    etas: Pair = Field((0.5, 1.2), description="Factors of a step: the sign changed, it stayed.")
    step_sizes: Pair = Field((1e-6, 50.0), description="Smallest and largest step.")

    @model_validator(mode="after")
    def _in_order(self) -> Rprop:
        if not self.etas[0] < 1 < self.etas[1]:
            raise ValueError("etas must be below and above 1 | write etas: [0.5, 1.2]")
        if self.step_sizes[0] > self.step_sizes[1]:
            raise ValueError("step_sizes are exchanged | write the smaller one first")
        return self


class Adafactor(_Optimizer):
    """Adafactor: keeps sums of rows and columns in place of a number a weight."""

    name: Literal["adafactor"]
    beta2_decay: Annotated[float, Field(ge=-10, le=0)] = Field(
        -0.8, description="Power of the step that is 1 less the decay of the mean of squares."
    )
    eps: Annotated[tuple[Rate | None, Rate], Strict(False)] = Field(
        (None, 1e-3), description="Of squares (null: the dtype's), and smallest scale of weights."
    )
    d: Annotated[float, Field(ge=1, le=1e6)] = Field(
        1.0, description="Largest root mean square of a step."
    )
    weight_decay: Decay = 0.0


class Muon(_Optimizer):
    """Muon, for weight matrices; adamw with its own defaults moves biases, norms, convolutions."""

    name: Literal["muon"]
    others_lr: Rate | None = Field(
        None, description="Learning rate of what adamw moves; default: lr."
    )
    weight_decay: Decay = 0.1
    momentum: Momentum = 0.95
    nesterov: bool = Field(True, description="Look ahead.")
    ns_coefficients: Three = Field(
        (3.4445, -4.775, 2.0315), description="Of the Newton-Schulz polynomial."
    )
    eps: Eps = 1e-7
    ns_steps: Annotated[int, Field(ge=1, le=99)] = Field(5, description="Newton-Schulz steps.")
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = Field(
        None, description="How the rate follows a matrix's shape; default: original."
    )


OneOptimizer = (
    Sgd | Adam | AdamW | NAdam | RAdam | Adamax | RmsProp | Adagrad | Adadelta | Asgd | Rprop
    | Adafactor | Muon
)  # fmt: skip

_REFUSED = {
    "lbfgs": "lbfgs computes the loss several times a step, which a training step does not",
    "sparse_adam": "sparse_adam wants sparse gradients, and no layer here gives any",
}


def _not_refused(value: Any) -> Any:
    """Say why two of torch's optimizers are not here."""
    name = value.get("name") if isinstance(value, dict) else None
    if str(name) in _REFUSED:
        raise ValueError(f"{_REFUSED[str(name)]} | write name: adamw")
    return value


def adamw_unless_named(value: Any) -> Any:
    """Let `optimizer: {lr: 1e-4}` mean the default optimizer with another rate."""
    return {"name": "adamw", **value} if isinstance(value, dict) and "name" not in value else value


AnyOptimizer = Annotated[OneOptimizer, Field(discriminator="name"), BeforeValidator(_not_refused)]


class OwnRate(Section):
    """Settings that a layer, a group or a phase may have of its own."""

    lr: Rate | None = Field(None, description="Learning rate; the optimizer stays as it is.")
    optimizer: AnyOptimizer | None = Field(
        None, description="Another optimizer, in full; `{lr: 0.01}` alone is short for `lr`."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, written: Any) -> Any:
        """Read `optimizer: {lr: 0.01}` as `lr: 0.01`, and `optimizer: sgd` as its name."""
        own = written.get("optimizer") if isinstance(written, dict) else None
        if isinstance(own, dict) and own.keys() == {"lr"} and "lr" not in written:
            rest = {key: value for key, value in written.items() if key != "optimizer"}
            return {**rest, "lr": own["lr"]}
        return written

    @model_validator(mode="after")
    def _one_rate(self) -> OwnRate:
        if self.lr is not None and self.optimizer is not None and self.optimizer.lr is not None:
            raise ValueError("lr stands beside optimizer.lr | drop one of the two")
        return self


class OwnSettings(OwnRate):
    """What an added layer, or a group, may say of how it learns."""

    weight_decay: NotNegative | None = Field(
        None, description="In the place of the optimizer's weight_decay."
    )
