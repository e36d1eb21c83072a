"""From a recipe and its data to what a model learns and is judged by."""

from __future__ import annotations

from typing import Any

import torch

from tlcompile.data.samples import Samples
from tlcompile.recipe.schema import Recipe
from tlcompile.training.goal import simple_goal
from tlcompile.training.objective import Objective


def objective_of(
    recipe: Recipe, classes: tuple[str, ...], train: Samples | None, device: torch.device
) -> Objective:
    """Return the objective of a recipe."""
    del train
    return Objective({"": simple_goal(recipe.task, len(classes))}, device=device)


def monitor_of(recipe: Recipe, objective: Any, *, judged: bool) -> str:
    """Return the value that names the best epoch; without validation images, that of training."""
    monitor = str(recipe.fine_tune.monitor or f"val/{objective.monitor}")
    return monitor if judged else monitor.replace("val/", "train/")
