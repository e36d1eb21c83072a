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
from tlcompile.run.devices import device_notes
from tlcompile.run.rates import Edge, RateRow, edges_of, rate_notes, rates_of


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
        edges: What thaws and what freezes at each phase behind the first.
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
    edges: tuple[Edge, ...]
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
            "edges": [asdict(edge) for edge in self.edges],
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
        rates=rates_of(recipe, (model, *later)),
        edges=edges_of(recipe, (model, *later)),
        boundary=model.boundary,
        feature_bytes=feature_bytes(recipe, model),
        rows_of_features=kept,
        tier=tier_of(recipe, model, device_type(recipe), kept),
        not_cacheable=model.not_cacheable,
        costs=costs_of(recipe.phases()[0], model),
        notes=(
            *summary.notes,
            *_pass_note(recipe, model),
            *rate_notes(recipe),
            *device_notes(recipe, (model, *later)),
            *_first_only(recipe),
        ),
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


def _first_only(recipe: Recipe) -> list[str]:
    """Say which phase the tables and figures are of."""
    phases = recipe.fine_tune.phases
    return [f"all above the rates is phase {phases[0].name}"] if phases and phases[1:] else []
