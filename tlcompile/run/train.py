"""Train a recipe: images, model, features, epochs, bundle. One run, one folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tlcompile.durable.generations import sweep_temporaries
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.finishing import finish
from tlcompile.run.folder import add_row, begin, make_run_folder, only_here
from tlcompile.run.live import live
from tlcompile.run.opening import conditions_of, open_run
from tlcompile.run.phases import Phases
from tlcompile.run.plan import make_plan
from tlcompile.run.plan_text import plan_text
from tlcompile.run.refuse_sharding import refuse_idle_sharding
from tlcompile.run.saving import Saving
from tlcompile.run.shared import Own
from tlcompile.run.signals import Stop, stopping
from tlcompile.run.splits import Say
from tlcompile.run.tracking.following import Following
from tlcompile.run.trust import warn_of_no_value, warn_of_start, warn_of_unmoved
from tlcompile.training.judged import judged_of
from tlcompile.training.loop import EpochDone, PhaseTrainer, Stepped
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.state import EpochRow


@dataclass(frozen=True)
class RunResult:
    """What a run ends with.

    Attributes:
        model: With the best epoch's weights.
        history: One row an epoch.
        best: The best epoch's row.
        record: What was written to record.json.
        models: One a phase; the first is `model`.
    """

    model: CompiledModel
    history: list[EpochRow]
    best: EpochRow
    record: dict[str, Any]
    models: Sequence[CompiledModel]


def train_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    base: nn.Module | None = None,
    swept: bool = False,
    never_anew: bool = False,
    inexact: bool = False,
    ranks: Ranks = ALONE,
    shared: Own | None = None,
    say: Say = lambda _line: None,
    show: Say = lambda _line: None,
    on_epoch: Callable[[EpochRow, bool], None] = lambda _row, _best: None,
) -> RunResult:
    """Train a recipe into its folder; an unfinished run that is there goes on, to the bit.

    Args:
        recipe: Complete.
        folder: The run's own; made if absent.
        base: Your own module instead of the recipe's base.
        swept: Whether it is a point of a sweep, where a line may be idle at some points.
        never_anew: Fail rather than start over a run whose checkpoints cannot be used.
        inexact: Whether an unfinished run may go on under conditions that change its last bits.
        ranks: Processes that train together; each calls this, and the first alone writes.
        shared: What the points of a sweep make once; None: all is this run's own.
        say: Takes lines for the user.
        show: Takes the plan, before training.
        on_epoch: Called after each epoch, with whether it is the best so far.

    Raises:
        TLCompileError: Anything that the user, the data or the machine has to mend.
        StoppedError: A signal asked for it; what is done so far is saved.
    """
    started = time.perf_counter()
    refuse_idle_sharding(recipe, ranks)
    following = Following(folder, recipe, say, writes=ranks.is_first)
    phases = open_run(
        recipe, folder, base=base, swept=swept, ranks=ranks, shared=shared, say=following.say
    )
    models, state = phases.models, phases.state
    plan = plan_text(recipe, make_plan(recipe, models[0], phases.splits.sizes(), models[1:]))
    show(plan)
    make_run_folder(recipe, folder)
    with only_here(folder) if ranks.is_first else contextlib.nullcontext():
        if ranks.is_first:
            sweep_temporaries(folder)  # of a process that was killed
        saving = Saving(folder, phases, conditions_of(phases), following.say, inexact=inexact)
        phases.say_shared()
        if not saving.resume(never_anew=never_anew) and ranks.is_first:
            begin(folder, recipe, plan, models[0].tensors(), phases.objective)
        with following.open(state):
            proofs = _train(phases, saving, following, on_epoch)
            record = finish(phases, saving, proofs, started, following.say)
    best = state.history[state.best or 0]
    return RunResult(models[0].eval(), state.history, best, record, models)


def _train(
    phases: Phases,
    saving: Saving,
    following: Following,
    on_epoch: Callable[[EpochRow, bool], None],
) -> list[str]:
    """Train what is left of every phase; return the proof of each.

    Raises:
        StoppedError: A signal asked for it.
    """
    state = phases.state
    while state.phase < len(phases.models):
        index = state.phase
        model = phases.models[index]
        proof = saving.proof or phases.proof(index)
        following.event("phase begins", phase=phases.names()[index])
        with phases.open(index, proof) as trainer:
            saving.began(trainer, proof)
            with stopping() as stop:
                _train_phase(trainer, saving, following, stop, on_epoch)
        saving.proofs.append(proof.check(model))
        following.say(f"freeze proof: {saving.proofs[-1]}")
        warn_of_unmoved(proof, model, following.say)
        following.event("phase ends", phase=phases.names()[index])
        with stopping():  # a commit that has begun ends
            saving.finish_phase(restore_best=phases.restores_best(index))
    return saving.proofs


def _train_phase(
    trainer: PhaseTrainer,
    saving: Saving,
    following: Following,
    stop: Stop,
    on_epoch: Callable[[EpochRow, bool], None],
) -> None:
    ranks = trainer.ranks
    if trainer.ranks.world == 1:  # ranks stop together, behind a step
        trainer.between = partial(stop.check, "the last checkpoint")
    state = trainer.state
    with live(trainer) as show:
        for event in trainer.run():
            show(event)
            following.look()
            warn_of_start(state, trainer.objective, trainer.model, following.say)
            if isinstance(event, EpochDone):
                saving.note_best(event)
                if event.is_best and ranks.is_first and event.row.val is not None:
                    assert trainer.scoring is not None
                    judged = judged_of(trainer.scoring, trainer.objective, event.row.val)
                    saving.note_judged(judged)
                if ranks.is_first:
                    add_row(saving.folder, event.row, trainer.objective)
                following.epoch(event.row)
                warn_of_no_value(state, trainer.settings.monitor, following.say)
                if trainer.step.moved:  # else fp16 could not hold any gradient yet
                    trainer.proof.refuse_unreached()
                on_epoch(event.row, event.is_best)
            # Ranks stop and save after the same step, whichever of them was told to.
            asked = ranks.largest(stop.asked or 0)
            due = saving.is_due() if isinstance(event, Stepped) else saving.is_worth()
            if asked or ranks.largest(due):
                saving.save()
            if asked:
                stop.ask(asked)
                epoch, step = len(state.history) + 1, state.step + 1  # as the run that goes on says
                stop.check(f"a checkpoint before epoch {epoch}, step {step}")
