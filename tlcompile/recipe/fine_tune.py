"""The section `fine_tune`: how the trainable part is trained. Every rate has its unit."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    WithJsonSchema,
    model_validator,
)

from tlcompile.recipe.fields import (
    Activation,
    Name,
    NotNegative,
    Positive,
    Probability,
    Rate,
    RuleAt,
    Section,
    Seed,
    Text,
    as_list,
)
from tlcompile.recipe.initialisers import Init
from tlcompile.recipe.optimizers import AdamW, AnyOptimizer, adamw_unless_named
from tlcompile.recipe.phases import Group, Phase, refuse_unfit_phases
from tlcompile.recipe.regularise import Regularisation
from tlcompile.recipe.schedules import AnySchedule, Cosine
from tlcompile.recipe.tasks import (
    CLASS_WEIGHTS,
    LABEL_SMOOTHING,
    LOSS,
    ClassWeights,
    NamedLoss,
)

NoDecay = Literal["bias", "norm", "embedding"]
_ONE = {"enum": list(get_args(NoDecay))}
NoDecays = Annotated[
    tuple[NoDecay, ...],
    Strict(False),
    BeforeValidator(as_list),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE}]}),
]


class EarlyStop(Section):
    """Stop when the monitored value no longer improves."""

    patience: Positive = Field(5, description="Epochs without improvement.")
    min_delta: NotNegative = Field(
        0.0, description="Smallest gain that counts; the best epoch is the best by any gain."
    )


class FineTune(Regularisation):
    """How the trainable part is trained."""

    seed: Seed = Field(
        42, description="Of the new layers, the order of images, augmentation, dropout."
    )
    optimizer: Annotated[AnyOptimizer, BeforeValidator(adamw_unless_named)] = Field(
        AdamW(name="adamw"), description="torch.optim's, by name; default: adamw."
    )
    early_stop: EarlyStop | None = Field(None, description="Stop early; default: never.")
    schedule: AnySchedule = Field(
        Cosine(name="cosine"), description="How the rate changes; default: cosine."
    )
    layer_decay: Rate = Field(
        1.0,
        description="Factor of the rate for each stage nearer the input: the last stage's layers "
        "once, the classifier not. A layer or group with an lr of its own keeps it.",
    )
    groups: dict[Name, Group] = Field(
        {}, description="Settings of layers, by vertex, region or stage1..stage4."
    )
    no_decay: NoDecays = Field(
        (),
        description="What loses nothing by weight_decay: bias; norm: all of normalisations; "
        "embedding: tables, tokens and positions.",
    )
    bias_lr_factor: Rate = Field(1.0, description="Factor of the rate of biases.")
    epochs: Positive = Field(10, description="Passes over the training images.")
    batch_size: Positive = Field(32, description="Images a batch, per device.")
    sampling: Literal["all", "balanced"] = Field(
        "all",
        description="all: each image once an epoch. balanced: drawn so that classes come equally often.",
    )
    accumulate: Positive = Field(1, description="Batches a step of the optimizer.")
    monitor: Text | None = Field(
        None,
        description="Which value names the best epoch: val/ or train/ and a metric of the task; "
        "default: its main one, of a regression val/loss, of several outputs val/loss.",
    )
    loss: NamedLoss | None = Field(None, description=LOSS)
    label_smoothing: Probability = Field(0.0, description=LABEL_SMOOTHING)
    class_weights: ClassWeights | None = Field(None, description=CLASS_WEIGHTS)
    activation: Activation | None = Field(
        None, description="Of new linear and convolution layers that name none."
    )
    dropout: Probability | None = Field(None, description="Behind new layers that name none.")
    init: Init = Field("default", description="Of new layers' weights; default: torch's own.")
    phases: Annotated[
        Annotated[tuple[Phase, ...], Strict(False)] | None, AfterValidator(refuse_unfit_phases)
    ] = Field(None, description="Progressive unfreezing, phase by phase; `plan` shows them.")

    @model_validator(mode="after")
    def _epochs_or_phases(self) -> FineTune:
        if self.phases is None:
            return self
        if "epochs" in self.model_fields_set:
            raise RuleAt(
                "epochs stands beside phases, where it has no effect | give each phase its epochs",
                "epochs",
            )
        if self.early_stop is not None:
            raise RuleAt(
                "early_stop stands beside phases, where it has no effect "
                "| write until: {plateau: 5} in the phases that may end early",
                "early_stop",
            )
        return self

    def during(self, phase: Phase) -> FineTune:
        """Return what holds in one phase: what it does not say comes from here.

        `until` becomes early_stop, so the recipe of a phase is trained as any other.
        """
        optimizer = phase.optimizer or self.optimizer
        if phase.lr is not None:
            optimizer = optimizer.model_copy(update={"lr": phase.lr})
        until = phase.until
        early_stop = until and EarlyStop(patience=until.plateau, min_delta=until.min_delta)
        named = {key: getattr(phase, key) for key in _OF_A_PHASE}
        own = {key: value for key, value in named.items() if value is not None}
        fixed = {"optimizer": optimizer, "epochs": phase.most_epochs, "early_stop": early_stop}
        return self.model_copy(update={**own, **fixed, "phases": None})

    def wants_stages(self) -> bool:
        """Tell whether it says something by stages of the base."""
        return self.layer_decay != 1 or any(name in STAGES for name in self.groups)


_OF_A_PHASE = ("schedule", "layer_decay", "groups", "batch_size")
STAGES = ("stage1", "stage2", "stage3", "stage4")
