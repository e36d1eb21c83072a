"""Open a run: base, images, one model a phase, and all that is refused before it trains."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from tlcompile.data.masks import masks_digest
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import choose_device, exactly
from tlcompile.run.fingerprint import fingerprint_of
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.objective import monitor_of, objective_of
from tlcompile.run.phases import Phases
from tlcompile.run.refuse import (
    refuse_other_classes,
    refuse_other_data,
    refuse_own_base,
    refuse_untrainable,
)
from tlcompile.run.refuse_rates import refuse_unfit_rates, refuse_without_validation
from tlcompile.run.regularise import refuse_idle_regularisers
from tlcompile.run.shared import Own
from tlcompile.run.splits import Say, Splits, refuse_no_data
from tlcompile.run.tracking.following import refuse_missing_trackers
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.state import TrainingState


def open_run(
    recipe: Recipe,
    folder: Path,
    *,
    base: nn.Module | None = None,
    swept: bool = False,
    ranks: Ranks = ALONE,
    shared: Own | None = None,
    say: Say = lambda _line: None,
) -> Phases:
    """Compile a recipe for training; nothing is written yet.

    Args:
        recipe: Complete.
        folder: The run's own, which need not be there.
        base: Your own module instead of the recipe's base.
        swept: Whether it is a point of a sweep, where a line may be idle at some points.
        ranks: Processes that train together.
        shared: What the points of a sweep make once; None: all is this run's own.
        say: Takes lines for the user.

    Raises:
        TLCompileError: Anything that the user, the data or the machine has to mend.
    """
    device = ranks.device(choose_device(recipe).type)
    if device.index is not None:  # what torch puts on "the" GPU goes to this rank's
        torch.cuda.set_device(device)
    exactly(deterministic=recipe.run.deterministic)
    keep_freed_memory()
    _refuse_early(recipe, base)
    shared = shared or Own()
    with ranks.first_goes_first():  # it may have to download
        opened, origin = shared.base(recipe, base)
        splits = shared.splits(recipe, opened, say)
    refuse_own_base(folder, opened.run)
    models = shared.models(recipe, opened, len(splits.classes), base)
    if recipe.run.sharding == "none" or ranks.world == 1:  # else a part of it, phase by phase
        models[0].to(device)
    _refuse_unfit(recipe, models, splits, swept=swept)
    digests = shared.digests(recipe, splits)
    objective = objective_of(recipe, splits.classes, splits.train, device)
    if splits.val is None:
        refuse_without_validation(recipe, monitor_of(recipe, objective, judged=True))
    state = TrainingState()
    return Phases(
        recipe,
        folder,
        opened,
        origin,
        splits,
        models,
        objective,
        device,
        digests,
        say,
        state,
        ranks,
        shared,
    )


def conditions_of(phases: Phases) -> dict[str, object]:
    """Return what must be the same for an unfinished run to go on."""
    recipe, splits, world = phases.recipe, phases.splits, phases.ranks.world
    found = fingerprint_of(recipe, phases.origin, splits, phases.device, devices=world)
    contents = {
        name: hashlib.sha256(one.tobytes()).hexdigest() for name, one in phases.digests.items()
    }
    for name, part in splits.named().items():
        if part.masks:
            contents[f"masks of {name}"] = masks_digest(part, recipe.run.workers)
    return {**found, "contents": contents}


def _refuse_unfit(
    recipe: Recipe, models: tuple[CompiledModel, ...], splits: Splits, *, swept: bool
) -> None:
    refuse_other_classes(recipe, models[0], splits.classes)
    widths = {name: len(classes) for name, classes in splits.train.names.items()}
    several = swept or len(models) > 1
    for phase, model in zip(recipe.phases(), models, strict=True):
        refuse_untrainable(phase, model, len(splits.classes), swept=several, widths=widths)
    if not swept:
        refuse_idle_regularisers(recipe, models)
    refuse_unfit_rates(recipe, models, swept=swept)


def _refuse_early(recipe: Recipe, base: nn.Module | None) -> None:
    """Refuse what the recipe alone tells, before weights are downloaded."""
    if base is None:
        refuse_other_data(recipe)
    refuse_no_data(recipe)
    refuse_missing_trackers(recipe)
