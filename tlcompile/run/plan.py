"""What would happen, as data: vertices, weights, rates, costs. Needs neither weights nor data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tlcompile.features.pass_size import pass_size
from tlcompile.features.tiers import Tier
from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import CompiledModel, TensorRow, VertexRow
from tlcompile.recipe.schema import Recipe
from tlcompile.run.costs import Costs, costs_of, feature_bytes, tier_of
from tlcompile.run.device import device_type
from tlcompile.training.schedule import default_rate


@dataclass(frozen=True)
class RateRow:
    """What trains at one rate: one group of parameters in one phase.

    Attributes:
        phase: As in metrics.csv.
        trains: The outermost modules that its parameters belong to.
        tensors: How many.
        parameters: Numbers in them.
        optimizer: Its name.
        lr: At the start.
        schedule: Its name.
        epochs: At most.
        batch_size: Images a step.
    """

    phase: str
    trains: tuple[str, ...]
    tensors: int
    parameters: int
    optimizer: str
    lr: float
    schedule: str
    epochs: int
    batch_size: int


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe.

    Attributes:
        name: The recipe's.
        model: The base's.
        rows: One for each vertex, in the order of computation.
        removed: Vertices of the base that are taken away; `origin` is the reason.
        outputs: Vertices that are returned.
        tensors: One row each, with those of the base that are dropped.
        trainable: Parameters that learn.
        frozen: Parameters that do not.
        rates: What trains at which rate.
        boundary: What crosses from the frozen to the trainable part.
        feature_bytes: Of the features of one image, as they are kept.
        rows_of_features: Images whose features are kept, views counted; None: not known.
        tier: Where they are kept; None: nowhere.
        not_cacheable: Why nothing of the frozen part can be kept; else empty.
        costs: FLOPs and memory.
        notes: Sentences.
    """

    name: str
    model: str
    rows: tuple[VertexRow, ...]
    removed: tuple[VertexRow, ...]
    outputs: tuple[str, ...]
    tensors: tuple[TensorRow, ...]
    trainable: int
    frozen: int
    rates: tuple[RateRow, ...]
    boundary: tuple[Boundary, ...]
    feature_bytes: int
    rows_of_features: int | None
    tier: Tier | None
    not_cacheable: str
    costs: Costs
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain data; docs/json.md has the keys."""
        kept = self.rows_of_features
        return {
            "name": self.name,
            "model": self.model,
            "vertices": [asdict(row) for row in self.rows],
            "removed": [asdict(row) for row in self.removed],
            "outputs": list(self.outputs),
            "tensors": [asdict(row) for row in self.tensors],
            "parameters": {"trainable": self.trainable, "frozen": self.frozen},
            "rates": [asdict(rate) for rate in self.rates],
            "boundary": [
                {"vertex": b.vertex, "shape": list(b.shape), "bytes": b.num_bytes}
                for b in self.boundary
            ],
            "features": {
                "bytes_an_image": self.feature_bytes,
                "images": kept,
                "bytes": None if kept is None else kept * self.feature_bytes,
                "tier": self.tier.name if self.tier else None,
            },
            "costs": {**asdict(self.costs), "memory": self.costs.memory},
            "notes": list(self.notes),
        }


def make_plan(
    recipe: Recipe,
    model: CompiledModel,
    images: Mapping[str, int] | None = None,
    later: Sequence[CompiledModel] = (),
) -> Plan:
    """Derive the plan from a compiled model, which may live on meta.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled, as its first phase has it.
        images: How many there are in train, val and test, where that is known.
        later: Its models in the phases behind the first.
    """
    kept = _rows_of_features(recipe, images)
    parameters = dict(model.named_parameters())
    trainable = dict(model.trainable())
    summary = model.summary
    return Plan(
        name=recipe.name,
        model=summary.model,
        rows=summary.vertices,
        removed=summary.removed,
        outputs=summary.outputs,
        tensors=tuple(model.tensors()),
        trainable=sum(p.numel() for p in trainable.values()),
        frozen=sum(p.numel() for n, p in parameters.items() if n not in trainable),
        rates=_rates(recipe, (model, *later)),
        boundary=model.boundary,
        feature_bytes=feature_bytes(recipe, model),
        rows_of_features=kept,
        tier=tier_of(recipe, model, device_type(recipe), kept),
        not_cacheable=model.not_cacheable,
        costs=costs_of(recipe, model),
        notes=(*summary.notes, *_pass_note(recipe, model), *_notes(recipe)),
    )


def base_rate(recipe: Recipe, model: CompiledModel) -> float:
    """Return the learning rate: the recipe's, else one that fits what trains."""
    if recipe.fine_tune.optimizer.lr is not None:
        return float(recipe.fine_tune.optimizer.lr)
    return default_rate(model)


def _rates(recipe: Recipe, models: Sequence[CompiledModel]) -> tuple[RateRow, ...]:
    """Return what trains at which rate: one row a phase, none where nothing trains."""
    names = [phase.name for phase in recipe.fine_tune.phases or ()] or ["main"]
    phases = zip(names, recipe.phases(), models, strict=False)
    return tuple(_rate(*phase) for phase in phases if any(True for _ in phase[2].trainable()))


def _rate(name: str, recipe: Recipe, model: CompiledModel) -> RateRow:
    tune = recipe.fine_tune
    named = dict(model.trainable())
    return RateRow(
        phase=name,
        trains=tuple(dict.fromkeys(name.split(".")[0] for name in named)),
        tensors=len(named),
        parameters=sum(p.numel() for p in named.values()),
        optimizer=tune.optimizer.name,
        lr=base_rate(recipe, model),
        schedule=tune.schedule.name,
        epochs=tune.epochs,
        batch_size=tune.batch_size,
    )


def _rows_of_features(recipe: Recipe, images: Mapping[str, int] | None) -> int | None:
    """Return how many rows a run keeps: training images in each view, others once."""
    if images is None:
        return None
    views = (recipe.features.views or 1) if recipe.data.augment.train else 1
    return images.get("train", 0) * views + images.get("val", 0) + images.get("test", 0)


def _pass_note(recipe: Recipe, model: CompiledModel) -> list[str]:
    """Say where a pass has more images than the recipe asks for."""
    asked = recipe.features.batch_size
    if not model.boundary or recipe.features.precision != "exact":
        return []
    size = pass_size(model, asked, torch.device(device_type(recipe)))
    why = f"with {asked} (features.batch_size) the last bits of a row would depend on its place"
    return [f"the frozen part takes {size} images a pass: {why}"] if size != asked else []


def _notes(recipe: Recipe) -> list[str]:
    notes = []
    for phase in recipe.phases():
        schedule, epochs = phase.fine_tune.schedule, phase.fine_tune.epochs
        if schedule.name == "step" and schedule.every >= epochs:
            notes.append(f"step at epoch {schedule.every}: not reached in {epochs}")
    for one in recipe.fine_tune.phases or ():
        if one.layer_decay != 1:
            factor = f"times {one.layer_decay:g} for each stage nearer the input"
            notes.append(f"phase {one.name}: the rate of a layer is {factor}")
        if one.until is not None:
            notes.append(f"phase {one.name}: ends after {one.until.plateau} epochs without gain")
    if recipe.fine_tune.phases:
        notes.append("the table above the rates is phase 1; this version does not train phases yet")
    return notes
