"""Schedules by name: how the learning rate changes within a phase."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, model_validator

from tlcompile.recipe.fields import (
    Fraction,
    NotNegative,
    Positive,
    Probability,
    Rate,
    Section,
    as_list,
)

Growth = Annotated[int, Field(ge=1, le=1000)]
Factor = Annotated[float, Field(gt=0, lt=1)]

Low = Annotated[Probability, Field(description="Factor that it falls to.")]
Gamma = Annotated[Rate, Field(description="Factor at each step.")]


class _Schedule(Section):
    def options(self) -> dict[str, Any]:
        """Return what `training.schedule.build_schedule` takes, less the name."""
        return {
            ("low" if key == "min" else key): value
            for key, value in self.model_dump(exclude={"name"}).items()
        }


class _Warm(_Schedule):
    warmup: NotNegative = Field(
        0.0,
        description="Grow from nearly 0 to the schedule's rate, step by step: share of the phase if "
        "below 1, else epochs.",
    )


class Constant(_Warm):
    """The same rate in every epoch."""

    name: Literal["constant"]


class Step(_Warm):
    """Multiplied by gamma after every so many epochs."""

    name: Literal["step"]
    every: Positive = Field(description="Epochs between two steps.")
    gamma: Gamma = 0.1


class MultiStep(_Warm):
    """Multiplied by gamma after each of some epochs."""

    name: Literal["multistep"]
    at: Annotated[tuple[Positive, ...], Strict(False), BeforeValidator(as_list)] = Field(
        description="Finished epochs at which it steps, rising."
    )
    gamma: Gamma = 0.1

    @model_validator(mode="after")
    def _rising(self) -> MultiStep:
        if not self.at or list(self.at) != sorted(set(self.at)):
            raise ValueError("at must name epochs, each once, rising | write at: [3, 6]")
        return self


class Exponential(_Warm):
    """Multiplied by gamma after every epoch."""

    name: Literal["exponential"]
    gamma: Rate = Field(0.9, description="Factor of each epoch.")


class LinearFall(_Warm):
    """From the rate down along a line, epoch by epoch."""

    name: Literal["linear"]
    min: Low = 0.0


class Polynomial(_Warm):
    """From the rate down to zero along a power of what is left, epoch by epoch."""

    name: Literal["polynomial"]
    power: Rate = Field(1.0, description="Power; 1 is a line.")


class Cosine(_Warm):
    """From the rate down along half a cosine, epoch by epoch."""

    name: Literal["cosine"]
    min: Low = 0.0


class CosineRestarts(_Warm):
    """Half a cosine that starts anew, epoch by epoch."""

    name: Literal["cosine_restarts"]
    every: Positive = Field(description="Epochs of the first half cosine.")
    growth: Growth = Field(1, description="Factor of the length of each next one.")
    min: Low = 0.0


class OneCycle(_Schedule):
    """Up to the rate and down again, step by step; momentum stays."""

    name: Literal["one_cycle"]
    rise: Fraction = Field(0.3, description="Share of the phase in which the rate grows.")
    start: Factor = Field(0.04, description="Factor of the rate at the start.")
    end: Factor = Field(4e-6, description="Factor of the rate at the end.")
    shape: Literal["cosine", "linear"] = Field("cosine", description="Of both ways.")


class Plateau(_Warm):
    """Multiplied by factor when the monitored value no longer improves."""

    name: Literal["plateau"]
    factor: Factor = Field(0.1, description="Factor at each step.")
    patience: Positive = Field(5, description="Epochs without improvement.")
    min_delta: NotNegative = Field(0.0, description="Smallest change that counts.")
    min: Low = 0.0


OneSchedule = (
    Constant | Step | MultiStep | Exponential | LinearFall | Polynomial | Cosine | CosineRestarts
    | OneCycle | Plateau
)  # fmt: skip
AnySchedule = Annotated[OneSchedule, Field(discriminator="name")]
