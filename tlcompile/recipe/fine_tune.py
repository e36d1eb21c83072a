"""The section `fine_tune`: how the trainable part is trained. Every rate has its unit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, model_validator

from tlcompile.recipe.fields import (
    Activation,
    Name,
    NotNegative,
    Positive,
    Probability,
    Rate,
    Section,
    Seed,
)
from tlcompile.recipe.freeze import Freeze
from tlcompile.recipe.initialisers import Init

Betas = Annotated[tuple[Probability, Probability], Strict(False)]


class _Optimizer(Section):
    lr: Rate | None = Field(
        None, description="Learning rate; default 1e-3 where only new layers train, else 1e-4."
    )


class Sgd(_Optimizer):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: Probability = Field(0.0, description="Weight of the earlier steps.")
    nesterov: bool = Field(False, description="Look ahead; needs momentum.")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty added to the gradient.")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0 | write momentum: 0.9")
        return self


class Adam(_Optimizer):
    """Adam, with the penalty in the gradient."""

    name: Literal["adam"]
    betas: Betas = Field((0.9, 0.999), description="Decay of the two running means.")
    eps: NotNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty added to the gradient.")


class AdamW(_Optimizer):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    betas: Betas = Field((0.9, 0.999), description="Decay of the two running means.")
    eps: NotNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NotNegative = Field(0.01, description="Share of each weight lost a step, x lr.")


class RmsProp(_Optimizer):
    """RMSprop."""

    name: Literal["rmsprop"]
    alpha: Probability = Field(0.99, description="Decay of the running mean of squares.")
    momentum: Probability = Field(0.0, description="Weight of the earlier steps.")
    eps: NotNegative = Field(1e-8, description="Added to the denominator.")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty added to the gradient.")


def _adamw_unless_named(value: Any) -> Any:
    """Let `optimizer: {lr: 1e-4}` mean the default optimizer with another rate."""
    return {"name": "adamw", **value} if isinstance(value, dict) and "name" not in value else value


AnyOptimizer = Annotated[Sgd | Adam | AdamW | RmsProp, Field(discriminator="name")]


class Constant(Section):
    """The same rate in every epoch."""

    name: Literal["constant"]


class Cosine(Section):
    """From the rate down to zero along half a cosine, epoch by epoch."""

    name: Literal["cosine"]


class Step(Section):
    """Multiplied by gamma after every so many epochs."""

    name: Literal["step"]
    every: Positive = Field(description="Epochs between two steps.")
    gamma: Rate = Field(0.1, description="Factor at each step.")


AnySchedule = Annotated[Constant | Cosine | Step, Field(discriminator="name")]


class EarlyStop(Section):
    """Stop when the monitored value no longer improves."""

    patience: Positive = Field(5, description="Epochs without improvement.")
    min_delta: NotNegative = Field(0.0, description="Smallest change that counts.")


class Until(Section):
    """When a phase ends early."""

    plateau: Positive = Field(description="Epochs without improvement of the monitored value.")


def _upto(value: Any) -> Any:
    """Let `freeze: layer3` mean `freeze: {upto: layer3}` in a phase too."""
    return value if value is None or isinstance(value, dict | Freeze) else {"upto": value}


class Phase(Section):
    """One phase of progressive unfreezing."""

    name: Name = Field(description="Names it in plan and metrics.")
    freeze: Annotated[Freeze, BeforeValidator(_upto)] | None = Field(
        None, description="As the section `freeze`, which it replaces."
    )
    epochs: Positive = Field(10, description="Passes over the training images, at most.")
    lr: Rate | None = Field(
        None, description="Learning rate of this phase; the optimizer stays as it is."
    )
    optimizer: AnyOptimizer | None = Field(None, description="Another optimizer, in full.")
    schedule: AnySchedule | None = Field(
        None, description="Another schedule; each phase starts it anew."
    )
    layer_decay: Rate = Field(1.0, description="Factor of the rate, a stage nearer the input.")
    until: Until | None = Field(None, description="When to go on before the epochs are over.")

    @model_validator(mode="after")
    def _one_rate(self) -> Phase:
        if self.lr is not None and self.optimizer is not None and self.optimizer.lr is not None:
            raise ValueError("lr stands beside optimizer.lr | drop one of the two")
        return self


class FineTune(Section):
    """How the trainable part is trained."""

    seed: Seed = Field(
        42, description="Of the new layers, the order of images, augmentation, dropout."
    )
    optimizer: Annotated[AnyOptimizer, BeforeValidator(_adamw_unless_named)] = Field(
        AdamW(name="adamw"), description="torch.optim's, by name; default: adamw."
    )
    schedule: AnySchedule = Field(
        Cosine(name="cosine"), description="How the rate changes; default: cosine."
    )
    epochs: Positive = Field(10, description="Passes over the training images.")
    batch_size: Positive = Field(32, description="Images a step, per device.")
    monitor: Literal["val/accuracy", "val/loss", "train/accuracy", "train/loss"] = Field(
        "val/accuracy",
        description="Which value names the best epoch; losses fall, accuracies rise.",
    )
    early_stop: EarlyStop | None = Field(None, description="Stop early; default: never.")
    label_smoothing: Probability = Field(
        0.0, description="Share of the target spread over all classes."
    )
    clip_norm: Rate | None = Field(None, description="Largest norm of all gradients together.")
    activation: Activation | None = Field(
        None, description="Of new linear and convolution layers that name none."
    )
    dropout: Probability | None = Field(None, description="Behind new layers that name none.")
    init: Init = Field("default", description="Of new layers' weights; default: torch's own.")
    phases: Annotated[tuple[Phase, ...], Strict(False)] | None = Field(
        None,
        description="Progressive unfreezing, phase by phase; `plan` shows them. Not yet: train.",
    )

    @model_validator(mode="after")
    def _epochs_or_phases(self) -> FineTune:
        if self.phases is not None and "epochs" in self.model_fields_set:
            raise ValueError(
                "epochs stands beside phases, where it has no effect | give each phase its epochs"
            )
        if self.phases == ():
            raise ValueError("phases is an empty list | drop it, or write a phase")
        names = [phase.name for phase in self.phases or ()]
        if len(set(names)) < len(names):
            raise ValueError("two phases have one name | give each a name of its own")
        return self

    def during(self, phase: Phase) -> FineTune:
        """Return what holds in one phase: what it does not say comes from here."""
        optimizer = phase.optimizer or self.optimizer
        if phase.lr is not None:
            optimizer = optimizer.model_copy(update={"lr": phase.lr})
        own = {
            "optimizer": optimizer,
            "schedule": phase.schedule or self.schedule,
            "epochs": phase.epochs,
            "phases": None,
        }
        return self.model_copy(update=own)
