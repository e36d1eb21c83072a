"""What a recipe costs before it runs: FLOPs, memory, bytes of features. Estimates, by a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlcompile.features.tiers import Tier, choose_tier, free_bytes
from tlcompile.model.compiled import CompiledModel, VertexRow
from tlcompile.model.summary import vertices_behind
from tlcompile.recipe.schema import Recipe
from tlcompile.run.groups import groups_of
from tlcompile.training.groups import Group

FLOAT = 4  # bytes; gradients and optimizers' state are fp32

# Tensors as large as the parameter that torch.optim keeps for each.
_STATE = {
    "sgd": 0, "adam": 2, "adamw": 2, "nadam": 2, "radam": 2, "adamax": 2, "rmsprop": 1,
    "adagrad": 1, "adadelta": 2, "asgd": 1, "rprop": 2, "adafactor": 0, "muon": 0,
}  # fmt: skip
_MORE = ("momentum", "amsgrad", "centered")  # options that cost one tensor more


@dataclass(frozen=True)
class Costs:
    """What one image, and one batch, costs.

    memory = weights + gradients + state + max(activations, prefix), where
    weights: parameters and buffers of the whole model;
    gradients: one number for each parameter that trains;
    state: what the optimizer keeps for it (adam and adamw two numbers, sgd with momentum one);
    activations: what every vertex of the trainable part computes, times the batch size: all is
    kept for the backward pass;
    prefix: the most that is alive at once in the frozen part, times features.batch_size.
    torch's own memory, its convolutions' workspace and the images come on top.

    Units:
        FLOPs of one image, two for a multiplication with its addition; bytes.

    Attributes:
        prefix_flops: Of the frozen part.
        suffix_flops: Of the trainable part, forward.
        step_flops: Of the trainable part in a training step: forward and backward.
        weights: Bytes.
        gradients: Bytes.
        state: Bytes.
        activations: Bytes of one batch.
        prefix: Bytes of one chunk.
    """

    prefix_flops: int
    suffix_flops: int
    step_flops: int
    weights: int
    gradients: int
    state: int
    activations: int
    prefix: int

    @property
    def memory(self) -> int:
        """Return the estimate in all, in bytes."""
        return self.weights + self.gradients + self.state + max(self.activations, self.prefix)


def costs_of(recipe: Recipe, model: CompiledModel) -> Costs:
    """Estimate one phase from its compiled model, which may live on meta."""
    rows = model.summary.vertices
    prefix = vertices_behind((boundary.vertex for boundary in model.boundary), rows)
    inside = {row.name for row in prefix}
    suffix = [row for row in rows if row.name not in inside]
    trainable = sum(p.numel() for _, p in model.trainable())
    return Costs(
        prefix_flops=sum(row.flops for row in prefix),
        suffix_flops=sum(row.flops for row in suffix),
        step_flops=_step_flops(suffix),
        weights=sum(t.numel() * t.element_size() for t in model.state_dict().values()),
        gradients=trainable * FLOAT,
        state=_state(recipe, model),
        activations=sum(row.num_bytes for row in suffix) * recipe.fine_tune.batch_size,
        prefix=_peak(prefix) * recipe.features.batch_size,
    )


def tier_of(recipe: Recipe, model: CompiledModel, device: str, rows: int | None) -> Tier | None:
    """Return where the features of a recipe are kept while it trains; None: nowhere.

    Args:
        recipe: What the user asked for.
        model: The recipe, compiled; it may live on meta.
        device: Type of the device that computes.
        rows: Images, views counted; None: not known.
    """
    if not model.boundary or recipe.features.cache == "off":
        return None
    row_bytes = feature_bytes(recipe, model)
    behind = vertices_behind((b.vertex for b in model.boundary), model.summary.vertices)
    flops = sum(row.flops for row in behind)
    return choose_tier(device, flops=flops, row_bytes=row_bytes, rows=rows, free=free_bytes())


def feature_bytes(recipe: Recipe, model: CompiledModel) -> int:
    """Return the bytes of the features of one image, as they are kept: bf16 in `fast`."""
    half = 2 if recipe.features.precision == "fast" else 1
    halved = {"float32": half}
    return sum(b.num_bytes // halved.get(b.dtype, 1) for b in model.boundary)


def _state(recipe: Recipe, model: CompiledModel) -> int:
    """Return the bytes that the optimizers of a phase keep; adafactor's sums are left out."""
    numel = {name: p.numel() for name, p in model.trainable()}
    return FLOAT * sum(
        sum(numel[name] for name in group.parameters) * _numbers_a_parameter(group)
        for group in groups_of(recipe, model)
    )


def _numbers_a_parameter(group: Group) -> int:
    return _STATE[group.optimizer] + sum(bool(group.options.get(key)) for key in _MORE)


def _step_flops(suffix: Sequence[VertexRow]) -> int:
    """Count forward and backward: the work again for each weight and each input with a gradient."""
    with_gradient: set[str] = set()
    total = 0
    for row in suffix:
        inputs = sum(name in with_gradient for name in row.reads)
        learns = row.num_parameters > 0 and not row.frozen
        if inputs or learns:
            with_gradient.add(row.name)
        total += row.flops * (1 + inputs + learns)
    return total


def _peak(rows: Sequence[VertexRow]) -> int:
    """Return the most bytes that are alive at once where each is freed behind its last reader."""
    last = {name: index for index, row in enumerate(rows) for name in row.reads}
    alive: dict[str, int] = {}
    most = 0
    for index, row in enumerate(rows):
        alive[row.name] = row.num_bytes
        most = max(most, sum(alive.values()))
        for name in (row.name, *row.reads):
            if last.get(name, len(rows)) <= index:
                alive.pop(name, None)
    return most
