"""The section `sweep`: how the points of a sweep are run. No part of a recipe's identity."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tlcompile.recipe.fields import Section

Engine = Literal["in_process", "joblib", "submitit", "ray"]


class Sweep(Section):
    """How the points of a sweep (-m) are run; no part of the recipe's identity."""

    engine: Engine = Field(
        "in_process",
        description="Who runs the points that are not fused: this process, one after the other, or "
        "Hydra's launcher of this name, in processes of their own; see docs/sweeps.md.",
    )
    isolate: bool = Field(
        False,
        description="Give each point a process of its own (3 s more): what ends one of them, or leaks, "
        "leaves the others.",
    )
    fuse: Literal["auto", "off"] = Field(
        "auto",
        description="auto: points that differ in numbers alone (rates, decay, momentum, schedules, epochs, "
        "label_smoothing, early_stop) train as one model, with the results of each alone. off: one by one.",
    )
