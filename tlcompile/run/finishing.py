"""End a run: its bundles, the one use of test/, and its record."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from tlcompile.bundle import save_bundle
from tlcompile.model.saved import tensor_files
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import read_classes, resolved, write_record
from tlcompile.run.groups import base_rate
from tlcompile.run.objective import monitor_of, outputs_record
from tlcompile.run.phases import Phases
from tlcompile.run.record import environment, images_digest
from tlcompile.run.saving import Saving, has_tensors, load_into
from tlcompile.run.splits import Say
from tlcompile.run.trust import tell_curves
from tlcompile.training.judged import judge
from tlcompile.training.state import EpochRow


def finish(
    phases: Phases, saving: Saving, proofs: list[str], started: float, say: Say
) -> dict[str, Any]:
    """Save the last and the best weights; return the record, which says that the run is finished.

    Args:
        phases: All trained; the first one's model has the best weights afterwards.
        saving: Has the best weights; its checkpoints go.
        proofs: Of each phase.
        started: On the clock, when the run began.
        say: Takes lines for the user.
    """
    recipe, folder, model, state = phases.recipe, phases.folder, phases.models[0], phases.state
    best = state.history[state.best or 0]
    several = len(phases.models) > 1
    saving.write_judged()
    record = {
        **_record(recipe, phases, best),
        "base": phases.origin,
        "precision": phases.precision,
        "features": phases.told if several else phases.told[0],
        "seconds": round(time.perf_counter() - started, 3),
        "freeze_proof": proofs if several else proofs[0],
        "curves": tell_curves(state, say),
        **environment(phases.device),
    }
    model.to(phases.home)
    writes, golden, frozen = phases.ranks.is_first, phases.golden(), phases.frozen_file()
    if writes:
        files = tensor_files(model, golden, frozen)
        last = {**record, "weights_of": "last epoch"}
        save_bundle(folder / "last", model, resolved(recipe), last, files)
    assert saving.best is not None
    is_last = has_tensors(model, saving.best)
    load_into(model, saving.best)
    record["test"] = _test_once(phases, say)
    model.to(phases.home).hold_freeze()
    if writes:
        bundled = {**record, "weights_of": "best epoch"}
        files = files if is_last else tensor_files(model, golden, frozen)
        save_bundle(folder / "bundle", model, resolved(recipe), bundled, files)
        write_record(folder, {**record, "state": "finished"})
        saving.clear()
    return record


def _test_once(phases: Phases, say: Say) -> dict[str, Any] | None:
    """Judge the best weights by test/, where there is one; its labels are used this one time."""
    test, index = phases.splits.test, phases.phase_of_best()
    if test is None:
        return None
    model, size = phases.ready(index), phases.recipe.features.batch_size
    with contextlib.ExitStack() as stack:
        source = phases.test
        if source is None:
            source = stack.enter_context(phases.sources(index, {"test": test}))["test"]
        objective = phases.objective
        judged = judge(model, source, objective=objective, batch_size=size, ranks=phases.ranks)
    say(f"test (used once): {judged.score.told()}")
    return judged.as_data()


def _record(recipe: Recipe, phases: Phases, best: EpochRow) -> dict[str, Any]:
    splits, opened = phases.splits, phases.opened
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
