"""What a run on several devices does otherwise than a run on one. For the plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from tlcompile.errors.base import listed
from tlcompile.model.compiled import CompiledModel, VertexRow
from tlcompile.recipe.data import FeatureAugment
from tlcompile.recipe.schema import Recipe
from tlcompile.training.ranks import is_rank

NAMES = 4  # shown of those that differ


def device_notes(recipe: Recipe, models: Iterable[CompiledModel]) -> list[str]:
    """Say how batches are divided, and which vertices make the result another than one device's."""
    devices = os.environ["WORLD_SIZE"] if is_rank() else str(recipe.run.devices)
    if devices == "1":
        return []
    models = list(models)
    norms = _learning(models, lambda kind: "batchnorm" in kind)
    random = [
        *_learning(models, lambda kind: any(word in kind for word in RANDOM)),
        *(["data.mix"] if recipe.data.mix is not None else []),
        *(["features.augment"] if recipe.features.augment != FeatureAugment() else []),
    ]
    size = recipe.fine_tune.batch_size
    who = "all GPUs of the machine" if devices == "auto" else f"{devices} devices"
    notes = [f"{who}, each with {size} images of a batch; the first one writes and speaks"]
    if recipe.run.sharding == "full":
        notes.append(
            "what trains, its gradients and the optimizer's state are cut over the devices: of the "
            "memory above, each has its share of these, and all of the frozen part"
        )
    if norms:
        notes.append(
            f"{listed(norms, NAMES)} learn from the images of each device alone, and the running "
            "statistics of the first one are kept: other numbers than on one device"
        )
    if random:
        notes.append(
            f"{listed(random, NAMES)} draw by (seed, step, device): other numbers than on one device"
        )
    return notes


RANDOM = ("dropout", "stochastic", "noise", "rrelu")  # in the kinds of vertices that draw


def _learning(models: Sequence[CompiledModel], is_kind: Callable[[str], bool]) -> list[str]:
    """Return the vertices of a kind that are not frozen in some phase."""
    rows: list[VertexRow] = [row for model in models for row in model.summary.vertices]
    return list(dict.fromkeys(r.name for r in rows if not r.frozen and is_kind(r.kind.lower())))
