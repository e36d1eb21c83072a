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
        description="Who runs the points. in_process: this process, fused where they can be, else one "
        "after the other. The others: Hydra's launcher of this name, each point in a process of its own.",
    )
    isolate: bool = Field(
        False,
        description="Give each point a process of its own (3 s more, never fused): what ends one of them, "
        "or leaks, leaves the others. Engines do so anyway.",
    )
    fuse: Literal["auto", "off"] = Field(
        "auto",
        description="auto: points that differ in numbers alone (rates, decay, momentum, schedules, epochs, "
        "label_smoothing, early_stop) train as one model, with the results of each alone. off: one by one.",
    )
