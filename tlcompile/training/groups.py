"""Groups of parameters: what learns by which rule, at which rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Group:
    """Parameters that learn alike.

    Attributes:
        name: Unique among the groups of a phase.
        parameters: Their names; each trainable parameter is in exactly one group.
        optimizer: Of `training.optim.OPTIMIZERS`.
        lr: Learning rate before the schedule.
        options: The optimizer's own, in torch's words.
    """

    name: str
    parameters: tuple[str, ...]
    optimizer: str
    lr: float
    options: Mapping[str, Any] = field(default_factory=dict)
