"""Train a recipe: images, model, features, epochs, bundle. One run, one folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tlcompile.bundle import save_bundle
from tlcompile.data.digests import Keys, digests_of
from tlcompile.data.samples import Samples
from tlcompile.durable.files import make_folder
from tlcompile.errors.data import DataError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import choose_device, exactly
from tlcompile.run.fingerprint import fingerprint_of
from tlcompile.run.folder import add_row, begin, read_classes, resolved, write_judged, write_record
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.groups import base_rate
from tlcompile.run.live import live
from tlcompile.run.objective import monitor_of, objective_of, outputs_record
from tlcompile.run.phases import Phases, models_of
from tlcompile.run.plan import make_plan
from tlcompile.run.plan_text import plan_text
from tlcompile.run.record import base_record, environment, images_digest
from tlcompile.run.refuse import (
    refuse_other_classes,
    refuse_other_data,
    refuse_own_base,
    refuse_untrainable,
)
from tlcompile.run.refuse_rates import refuse_unfit_rates, refuse_without_validation
from tlcompile.run.regularise import refuse_idle_regularisers
from tlcompile.run.saving import Saving, load_into
from tlcompile.run.signals import Stop, stopping
from tlcompile.run.splits import Say, Splits, check_readable, open_splits, refuse_no_data
from tlcompile.run.tracking.following import Following, refuse_missing_trackers
from tlcompile.run.trust import tell_curves, warn_of_start, warn_of_unmoved
from tlcompile.training.judged import Judged, judge, judged_of
from tlcompile.training.loop import EpochDone, PhaseTrainer, Stepped
from tlcompile.training.proof import FreezeProof
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.state import EpochRow, TrainingState
from tlcompile.zoo.base import BaseModel
from tlcompile.zoo.open import open_base


@dataclass(frozen=True)
class RunResult:
    """What a run ends with.

    Attributes:
        model: With the best epoch's weights.
        history: One row an epoch.
        best: The best epoch's row.
        record: What was written to record.json.
    """

    model: CompiledModel
    history: list[EpochRow]
    best: EpochRow
    record: dict[str, Any]


def train_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    base: nn.Module | None = None,
    swept: bool = False,
    never_anew: bool = False,
    inexact: bool = False,
    ranks: Ranks = ALONE,
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
        say: Takes lines for the user.
        show: Takes the plan, before training.
        on_epoch: Called after each epoch, with whether it is the best so far.

    Raises:
        TLCompileError: Anything that the user, the data or the machine has to mend.
        StoppedError: A signal asked for it; what is done so far is saved.
    """
    started = time.perf_counter()
    following = Following(folder, recipe, say, writes=ranks.is_first)
    say = following.say
    device = ranks.device(choose_device(recipe).type)
    exactly(deterministic=recipe.run.deterministic)
    keep_freed_memory()
    _refuse_early(recipe, base)
    with ranks.first_goes_first():  # it may have to download
        opened = open_base(recipe, base)
        splits = open_splits(recipe, opened.preprocessing.channels, say, opened.categories)
    refuse_own_base(folder, opened.run)
    started_from = base_record(opened)  # the compiler takes the tensors
    models = models_of(recipe, opened, len(splits.classes), base)
    models[0].to(device)
    refuse_other_classes(recipe, models[0], splits.classes)
    for phase, model in zip(recipe.phases(), models, strict=True):
        several = swept or len(models) > 1
        widths = {name: len(classes) for name, classes in splits.train.names.items()}
        refuse_untrainable(phase, model, len(splits.classes), swept=several, widths=widths)
    if not swept:
        refuse_idle_regularisers(recipe, models)
    refuse_unfit_rates(recipe, models, swept=swept)
    digests = _digests(recipe, splits)
    objective = objective_of(recipe, splits.classes, splits.train, device)
    if splits.val is None:
        refuse_without_validation(recipe, monitor_of(recipe, objective, judged=True))
    state = TrainingState()
    phases = Phases(
        recipe, folder, opened, splits, models, objective, device, digests, say, state, ranks
    )
    plan = plan_text(recipe, make_plan(recipe, models[0], splits.sizes(), models[1:]))
    show(plan)
    make_folder(folder)
    conditions = fingerprint_of(recipe, started_from, splits, device, devices=ranks.world)
    contents = {name: hashlib.sha256(keys.tobytes()).hexdigest() for name, keys in digests.items()}
    saving = Saving(folder, phases, {**conditions, "contents": contents}, say, inexact=inexact)
    phases.say_shared()
    if not saving.resume(never_anew=never_anew) and ranks.is_first:
        begin(folder, recipe, plan, models[0].tensors(), objective)
    with following.open(state):
        proofs = _train(phases, saving, following, on_epoch)
        best = phases.state.history[phases.state.best or 0]
        record = {
            **_record(recipe, opened, phases, best),
            "base": started_from,
            "precision": phases.precision,
            "features": phases.told[0] if len(models) == 1 else phases.told,
            "seconds": round(time.perf_counter() - started, 3),
            "freeze_proof": proofs[0] if len(proofs) == 1 else proofs,
            "curves": tell_curves(state, say),
            **environment(device),
        }
        model = models[0]
        if ranks.is_first:
            last = {**record, "weights_of": "last epoch"}
            save_bundle(folder / "last", model, resolved(recipe), last)
        assert saving.best is not None
        load_into(model, saving.best)
        record["test"] = _test_once(phases, say)
        model.hold_freeze()
        if ranks.is_first:
            best_one = {**record, "weights_of": "best epoch"}
            save_bundle(folder / "bundle", model, resolved(recipe), best_one)
            write_record(folder, {**record, "state": "finished"})
            saving.clear()
    return RunResult(model.eval(), phases.state.history, best, record)


def _refuse_early(recipe: Recipe, base: nn.Module | None) -> None:
    """Refuse what the recipe alone tells, before weights are downloaded."""
    if base is None:
        refuse_other_data(recipe)
    refuse_no_data(recipe)
    refuse_missing_trackers(recipe)


def _digests(recipe: Recipe, splits: Splits) -> dict[str, Keys]:
    """Return the digest of every image.

    Raises:
        UnreadableImagesError: Some cannot be read; all of them, of all splits.
    """
    named, workers = splits.named(), recipe.run.workers
    try:
        return {name: digests_of(part, workers=workers) for name, part in named.items()}
    except DataError:
        check_readable(recipe, splits.all())
        raise


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
        proof = saving.proof or FreezeProof.take(model, _name_of_phase(phases))
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
                    write_judged(saving.folder, judged)
                saving.save()
                if ranks.is_first:
                    add_row(saving.folder, event.row, trainer.objective)
                following.epoch(event.row)
                trainer.proof.refuse_unreached()
                on_epoch(event.row, event.is_best)
            # Ranks stop and save after the same step, whichever of them was told to.
            asked = ranks.largest(stop.asked or 0)
            if isinstance(event, Stepped) and (asked or ranks.largest(saving.is_due())):
                saving.save()
            if asked:
                stop.ask(asked)
                stop.check(f"a checkpoint of epoch {len(state.history) + 1}, step {state.step}")


def _name_of_phase(phases: Phases) -> str:
    return phases.names()[phases.state.phase] if phases.recipe.fine_tune.phases else ""


def _test_once(phases: Phases, say: Say) -> dict[str, Any] | None:
    """Judge the best weights by test/, where there is one; its labels are used this one time."""
    if phases.splits.test is None:
        return None
    judged = _judge_best(phases, "test", phases.splits.test)
    say(f"test (used once): {judged.score.told()}")
    return judged.as_data()


def _judge_best(phases: Phases, name: str, samples: Samples) -> Judged:
    index = phases.phase_of_best()
    model, size = phases.models[index], phases.recipe.features.batch_size
    model.hold_freeze()
    with phases.sources(index, {name: samples}) as sources:
        source, objective = sources[name], phases.objective
        return judge(model, source, objective=objective, batch_size=size, ranks=phases.ranks)


def _record(recipe: Recipe, opened: BaseModel, phases: Phases, best: EpochRow) -> dict[str, Any]:
    splits = phases.splits
    names = {name for model in phases.models for name, _ in model.trainable()}
    return {
        "name": recipe.name,
        "task": recipe.task if isinstance(recipe.task, str) else "several",
        "outputs": outputs_record(phases.objective),
        "classes": list(splits.classes),
        "preprocessing": opened.preprocessing.to_dict(),
        "chunk_size": recipe.features.batch_size,
        "ancestry": opened.run.as_ancestor() if opened.run else [],
        "seed": recipe.fine_tune.seed,
        "trainable": sum(p.numel() for n, p in phases.models[0].named_parameters() if n in names),
        "lr": base_rate(recipe.phases()[0], phases.models[0]),
        "monitor": monitor_of(recipe, phases.objective, judged=splits.val is not None),
        "best": {
            "epoch": best.epoch,
            "train": best.train.as_data(),
            "val": best.val.as_data() if best.val else None,
            "classes": read_classes(phases.folder),
        },
        "images": {
            "train": splits.train.counts() or len(splits.train),
            "val": (splits.val.counts() or len(splits.val)) if splits.val else None,
        },
        "images_sha256": {name: images_digest(split) for name, split in splits.named().items()},
    }
