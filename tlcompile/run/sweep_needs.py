"""What every phase of every point of a sweep needs of its frozen part, from recipe and model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tlcompile.data.samples import Samples
from tlcompile.features.canonical import TensorDigests
from tlcompile.features.fingerprint import describe_pixels
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.costs import costs_of, tier_of
from tlcompile.run.features import SourceBuilder
from tlcompile.run.parts import Part, parts_of
from tlcompile.run.phases import moving
from tlcompile.run.shared import Own, base_key, images_key
from tlcompile.store.store import About
from tlcompile.sweep.costs import Need
from tlcompile.zoo.preprocessing import Preprocessing


def needs_of(
    point: int,
    recipe: Recipe,
    models: Sequence[CompiledModel],
    splits: Mapping[str, Samples],
    preprocessing: Preprocessing,
    device: torch.device,
    shared: Own,
) -> Iterator[Need]:
    """Yield what each phase of a point reads.

    Args:
        point: Its number, from 0.
        recipe: What the user asked for.
        models: One a phase.
        splits: The images, by split.
        preprocessing: What every image goes through.
        device: Where it will train.
        shared: Names the rows.
    """
    for index, (phase, model) in enumerate(zip(recipe.phases(), models, strict=True)):
        builder = SourceBuilder(
            phase, preprocessing, model, device, _silent,
            shared=shared, describe=partial(shared.describe, recipe, index),
        )  # fmt: skip
        trained = moving(models[:index]) if index else frozenset()
        own = not model.frozen.tensors.isdisjoint(trained)
        parts = parts_of(phase, splits, preprocessing.size or 0)
        why = _why_live(phase, model, preprocessing, parts, own=own)
        abouts = () if why else builder.abouts()
        yield _need((point, index), phase, model, parts, builder, abouts, why)


def _why_live(
    recipe: Recipe,
    model: CompiledModel,
    preprocessing: Preprocessing,
    parts: Sequence[Part],
    *,
    own: bool,
) -> str:
    """Say why nothing of a phase can be shared with other points; else ''."""
    if not model.boundary:
        return model.not_cacheable or "nothing is frozen"
    if own:
        return "its frozen part is trained by this point"
    if recipe.features.cache == "off":
        return "features.cache: off"
    if describe_pixels(preprocessing) is None:
        return "images are not cropped to one size"
    if any(part.name == "train" and not part.tags for part in parts):
        return "augmented anew in every epoch"
    return ""


def _need(
    place: tuple[int, int],
    recipe: Recipe,
    model: CompiledModel,
    parts: Sequence[Part],
    builder: SourceBuilder,
    abouts: Sequence[About],
    why: str,
) -> Need:
    costs, tune = costs_of(recipe, model), recipe.fine_tune
    count = sum(len(part.samples) * part.views for part in parts)
    sizes = {part.name: len(part.samples) for part in parts}
    tier = tier_of(recipe, model, builder.device.type, count)
    images = [images_key(recipe), *((part.name, part.tags) for part in parts)]
    return Need(
        point=place[0],
        phase=place[1],
        keys=tuple(about.key for about in abouts),
        vertices=tuple(about.vertex for about in abouts),
        one_pass=_text(_pass_key(recipe, builder)),
        rows=_text(images),
        count=count,
        row_bytes=sum(about.row_bytes for about in abouts),
        train=sizes["train"],
        judged=sizes.get("val", 0),
        epochs=tune.epochs,
        frozen_flops=costs.prefix_flops,
        suffix_flops=costs.suffix_flops,
        step_flops=costs.step_flops,
        precision=builder.precision,
        chunk_size=builder.chunk_size(),
        tier=tier.name if tier and not why else "live",
        why=why or (tier.worded() if tier and tier.name == "live" else ""),
    )


def _pass_key(recipe: Recipe, builder: SourceBuilder) -> Any:
    """Return what must be equal for two phases to be computed in one pass."""
    return (
        base_key(recipe),
        builder.preprocessing.to_dict(),
        builder.precision,
        builder.chunk_size(),
        str(builder.device),
    )


def _text(key: Any) -> str:
    return json.dumps(key, sort_keys=True, default=str)


class NamedTensors(TensorDigests):
    """Names tensors on meta by where their values come from: equal names, equal values.

    So a plan needs no weights. It does not see that two bases share blocks: that takes the values.
    """

    def __init__(self, model: CompiledModel) -> None:
        super().__init__()
        held = model.state_dict(keep_vars=True)
        source = f"{model.summary.model} {model.summary.source}"
        self._names = {id(tensor): f"{source} {name}" for name, tensor in held.items()}

    def __call__(self, tensor: Tensor) -> dict[str, Any]:
        """Return its form, and its name in the place of a digest."""
        form = f"{tensor.dtype} {tuple(tensor.shape)}"
        return {"form": form, "sha256": self._names.get(id(tensor), f"constant {form}")}


def _silent(_line: str) -> None:
    """Say nothing: nothing runs yet."""
