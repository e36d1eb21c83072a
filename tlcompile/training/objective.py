"""What a model learns and is judged by: the losses and metrics of all its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tlcompile.recipe.tasks import default_monitor, main_metric
from tlcompile.training.goal import Goal
from tlcompile.training.losses import Loss
from tlcompile.training.scoring import Running as Running

Scoring = Running  # with all metrics; one class, because both add up


class Objective:
    """The goals of all outputs as one.

    Outputs and targets are one tensor each, or dictionaries by output where there are several.

    Shape:
        classification: logits (N, C), targets (N,) int64, or (N, C) chances
        binary:         logits (N, 1), targets (N,) int64
        multilabel:     logits (N, C), targets (N, C) 0 or 1
        regression:     outputs (N, T), targets (N, T)
        segmentation:   logits (N, C, H, W) or {"out": ..., "aux": ...}, targets (N, H, W) int64

    Args:
        goals: Of each output, by name; the only one is called "".
        device: Where sums begin.
    """

    def __init__(self, goals: Mapping[str, Goal], *, device: torch.device | str = "cpu") -> None:
        self.goals, self.device = dict(goals), device
        self._own: Loss | None = None

    @classmethod
    def of_loss(cls, loss: Loss) -> Objective:
        """Return the objective of a loss of the user's own, of which only the loss is known."""
        objective = cls({})
        objective._own = loss
        return objective

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the mean over a batch, to learn by.

        Shape:
            out: ()
        """
        return self._mean(Goal.learn, outputs, targets)

    def judge(self, outputs: Any, targets: Any) -> Tensor:
        """Return the mean over a batch, to report of validation: without label smoothing.

        Shape:
            out: ()
        """
        return self._mean(Goal.judge, outputs, targets)

    def _mean(
        self, of_goal: Callable[[Goal, Any, Any], Tensor], outputs: Any, targets: Any
    ) -> Tensor:
        """Return the user's own loss, that of the one output, or the weighted sum of all outputs'."""
        if self._own is not None:
            return self._own(outputs, targets)
        if "" in self.goals:
            return of_goal(self.goals[""], outputs, targets)
        parts = [g.weight * of_goal(g, outputs[n], targets[n]) for n, g in self.goals.items()]
        return torch.stack(parts).sum()

    def running(self) -> Running:
        """Return empty sums for a training epoch: loss and main metrics."""
        return Running(self.goals, full=False, device=self.device)

    def scoring(self) -> Scoring:
        """Return empty sums for a split: every metric."""
        return Running(self.goals, full=True, device=self.device)

    @property
    def metrics(self) -> dict[str, bool]:
        """Every metric's name without its split, loss first: True where higher is better."""
        if "" in self.goals:
            return self.goals[""].metrics
        named = {f"{n}/{m}": up for n, g in self.goals.items() for m, up in g.metrics.items()}
        return {"loss": False, **named}

    @property
    def trained(self) -> dict[str, bool]:
        """The metrics that `running` measures."""
        mains = {f"{n}/{main_metric(g.task)}".lstrip("/") for n, g in self.goals.items()}
        return {name: up for name, up in self.metrics.items() if name == "loss" or name in mains}

    @property
    def main(self) -> str:
        """The metric that is shown first: accuracy, f1, mae, iou; of several outputs the loss."""
        return main_metric(self.goals[""].task) if "" in self.goals else "loss"

    @property
    def monitor(self) -> str:
        """The metric that names the best epoch where the recipe names none."""
        return default_monitor(self.goals[""].task) if "" in self.goals else "loss"
