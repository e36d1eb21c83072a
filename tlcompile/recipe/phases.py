"""The phases of progressive unfreezing, and settings of named groups of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from tlcompile.recipe.fields import Name, NotNegative, Positive, Rate, RuleAt, Section
from tlcompile.recipe.freeze import Freeze
from tlcompile.recipe.optimizers import OwnRate, OwnSettings
from tlcompile.recipe.schedules import AnySchedule

UNTIL_EPOCHS = 100  # of a phase that says only when it ends


class Group(OwnSettings):
    """Settings of the layers of a region or a stage; where names nest, the innermost wins."""

    @model_validator(mode="after")
    def _says_something(self) -> Group:
        if self.lr is None and self.optimizer is None and self.weight_decay is None:
            raise ValueError("a group is empty | write lr: 1e-5, or drop the line")
        return self


class Until(Section):
    """When a phase ends early."""

    plateau: Positive = Field(description="Epochs without improvement of the monitored value.")
    min_delta: NotNegative = Field(
        0.0, description="Smallest gain that counts; the best epoch is the best by any gain."
    )


def _upto(value: Any) -> Any:
    """Let `freeze: layer3` mean `freeze: {upto: layer3}` in a phase too."""
    return value if value is None or isinstance(value, dict | Freeze) else {"upto": value}


class Phase(OwnRate):
    """One phase of progressive unfreezing; what it does not say comes from fine_tune."""

    name: Name = Field(description="Names it in plan and metrics.")
    freeze: Annotated[Freeze, BeforeValidator(_upto)] | None = Field(
        None, description="As the section `freeze`, which it replaces."
    )
    epochs: Positive | None = Field(
        None,
        description="Passes over the training images; with `until`: at most, and 100 if not given.",
    )
    until: Until | None = Field(
        None, description="When to go on before the epochs are over: {plateau: 5}."
    )
    schedule: AnySchedule | None = Field(
        None, description="Another schedule; each phase starts it anew."
    )
    layer_decay: Rate | None = Field(None, description="As fine_tune.layer_decay.")
    groups: dict[Name, Group] | None = Field(
        None, description="As fine_tune.groups, which it replaces as a whole."
    )
    batch_size: Positive | None = Field(None, description="Images a step, per device.")
    restore_best: bool = Field(
        False, description="Whether the phase ends with the weights of its best epoch."
    )

    @model_validator(mode="after")
    def _ends(self) -> Phase:
        if self.epochs is None and self.until is None:
            raise ValueError(
                f"phase {self.name} says neither epochs nor until | write epochs: 3, "
                "or until: {plateau: 2}"
            )
        return self

    @property
    def most_epochs(self) -> int:
        """Return the epochs that it has at most."""
        return UNTIL_EPOCHS if self.epochs is None else self.epochs


def refuse_unfit_phases(phases: Sequence[Phase] | None) -> Sequence[Phase] | None:
    """Refuse an empty list, and one name for two phases.

    Raises:
        RuleAt: With the place below the list.
    """
    if phases is None:
        return None
    if not phases:
        raise ValueError("phases is an empty list | drop it, or write a phase")
    names = [phase.name for phase in phases]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise RuleAt(f"two phases have one name: {name} | give each its own", index, "name")
    return phases
