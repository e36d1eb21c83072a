"""The section `run`: what the machine decides. No part of a recipe's identity."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema, model_validator

from tlcompile.recipe.fields import Count, NumBytes, Positive, Section, Text, as_list

Tracking = Literal["tensorboard", "mlflow", "wandb"]
_TRACKING_SCHEMA = {"enum": list(get_args(Tracking)), "type": "string"}
Trackings = Annotated[
    tuple[Tracking, ...],
    Strict(False),
    BeforeValidator(as_list),
    WithJsonSchema({"anyOf": [_TRACKING_SCHEMA, {"type": "array", "items": _TRACKING_SCHEMA}]}),
]


class Run(Section):
    """What the machine decides; no part of the recipe's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")
    devices: Positive | Literal["auto"] = Field(
        1,
        description="How many of this machine's; auto: all GPUs. Each computes `batch_size` images.",
    )
    sharding: Literal["none", "full"] = Field(
        "none",
        description="full: what trains is cut over the devices, with its gradients and the "
        "optimizer's state (FSDP2), for models that do not fit one. none: each has all of it.",
    )
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32",
        description="Of the trainable part. bf16, fp16: autocast, channels-last, optimizers in fp32. "
        "auto: bf16 or fp16 where the hardware is faster with it.",
    )
    compile: bool = Field(False, description="Whether torch.compile speeds up the trainable part.")
    deterministic: bool = Field(
        False,
        description="Take only kernels that compute the same bits every time; slower on a GPU. A CPU "
        "does so anyway.",
    )
    micro_batch: Positive | None = Field(
        None,
        description="Images computed at once, in a step; default: a batch. Halved where memory ends.",
    )
    workers: Count = Field(2, description="Threads that decode images.")
    output_dir: Text = Field("runs", description="The folder above the run's own.")
    cache: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="The folder of stored features; default: $TLCOMPILE_CACHE or the user's."
    )
    cache_budget: NumBytes = Field(
        "50GB", description="Stored features beyond it: the least recently used go."
    )
    checkpoint_seconds: Positive = Field(
        300,
        description="Seconds between checkpoints at most. At the end of an epoch one is written sooner, "
        "where that takes less than a hundredth of the time.",
    )
    track: Trackings = Field(
        (),
        description="Who follows the run, beside metrics.csv and events.jsonl; each is an extra.",
    )

    @model_validator(mode="after")
    def _track_each_once(self) -> Run:
        if len(set(self.track)) < len(self.track):
            raise ValueError("track names one twice | drop one of the two")
        return self
