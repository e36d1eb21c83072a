"""Train a recipe: images, model, features, epochs, bundle. One run, one folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tlcompile.bundle import save_bundle
from tlcompile.compiler import compile_opened
from tlcompile.data.samples import Samples
from tlcompile.errors.data import DataError
from tlcompile.features.sources import Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import choose_device, exactly
from tlcompile.run.features import SourceBuilder
from tlcompile.run.folder import add_row, begin, resolved, write_record
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.plan import base_rate, make_plan
from tlcompile.run.plan_text import plan_text
from tlcompile.run.record import base_record, environment, images_digest
from tlcompile.run.refuse import (
    refuse_other_classes,
    refuse_other_data,
    refuse_own_base,
    refuse_phases,
    refuse_untrainable,
)
from tlcompile.run.say import progress
from tlcompile.run.splits import Say, Splits, check_readable, open_splits, refuse_no_data
from tlcompile.training.loop import EpochRow, Stopping, evaluate, train_epochs
from tlcompile.training.losses import build_loss
from tlcompile.training.metrics import Score
from tlcompile.training.optim import build_optimizer
from tlcompile.training.proof import FreezeProof
from tlcompile.training.schedule import rate_factor
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
    say: Say = lambda _line: None,
    show: Callable[[str], None] = lambda _plan: None,
    on_epoch: Callable[[EpochRow, bool], None] = lambda _row, _best: None,
) -> RunResult:
    """Train a recipe into a folder.

    Args:
        recipe: What the user asked for.
        folder: The run's own folder; made if absent.
        base: Your own module instead of the recipe's base.
        swept: Whether it is a point of a sweep, where a line may be idle at some points.
        say: Takes lines for the user.
        show: Takes the plan, before training.
        on_epoch: Called after each epoch, with whether it is the best so far.

    Raises:
        TLCompileError: Anything that the user, the data or the machine has to mend.
    """
    started = time.perf_counter()
    device = choose_device(recipe)
    exactly()
    keep_freed_memory()
    _refuse_early(recipe, base)
    opened = open_base(recipe, base)
    refuse_own_base(folder, opened.run)
    started_from = base_record(opened)  # the compiler takes the tensors
    splits = open_splits(recipe, opened.preprocessing.channels, say, opened.categories)
    model = compile_opened(recipe, opened, len(splits.classes)).to(device)
    refuse_other_classes(recipe, model, splits.classes)
    refuse_untrainable(recipe, model, len(splits.classes), swept=swept)
    plan = plan_text(recipe, make_plan(recipe, model, splits.sizes()))
    show(plan)
    begin(folder, recipe, plan, model.tensors())
    features = SourceBuilder(recipe, opened.preprocessing, model, device, say)
    sources = _sources(recipe, features, splits)
    proof = FreezeProof.take(model)
    judged_by = sources["train"], sources.get("val")
    history, best, best_state = _epochs(recipe, folder, model, judged_by, proof, on_epoch)
    record = {
        **_record(recipe, opened, model, splits, best),
        "base": started_from,
        "precision": features.precision,
        "features": features.told,
        "seconds": round(time.perf_counter() - started, 3),
        **environment(device),
    }
    save_bundle(folder / "last", model, resolved(recipe), {**record, "weights_of": "last epoch"})
    record["freeze_proof"] = proof.check(model)  # after the weights are safe
    say(f"freeze proof: {record['freeze_proof']}")
    model.load_state_dict(best_state, strict=False)  # what is frozen has not moved
    record["test"] = _test_once(recipe, model, sources.get("test"), say)
    save_bundle(folder / "bundle", model, resolved(recipe), {**record, "weights_of": "best epoch"})
    write_record(folder, {**record, "state": "finished"})
    return RunResult(model.eval(), history, best, record)


def _refuse_early(recipe: Recipe, base: nn.Module | None) -> None:
    """Refuse what the recipe alone tells, before weights are downloaded."""
    refuse_phases(recipe)
    if base is None:
        refuse_other_data(recipe)
    refuse_no_data(recipe)


def _sources(recipe: Recipe, features: SourceBuilder, splits: Splits) -> dict[str, Source]:
    """Return where the rows of each split come from.

    Raises:
        UnreadableImagesError: Images are damaged; all of them, of all splits.
    """
    try:
        return features.sources(splits.named())
    except DataError:
        check_readable(recipe, splits.all())
        raise


def _epochs(
    recipe: Recipe,
    folder: Path,
    model: CompiledModel,
    sources: tuple[Source, Source | None],
    proof: FreezeProof,
    on_epoch: Callable[[EpochRow, bool], None],
) -> tuple[list[EpochRow], EpochRow, dict[str, Tensor]]:
    """Train; return all rows, the best one, and the moving tensors as they were after it."""
    tune = recipe.fine_tune
    options = tune.optimizer.model_dump(exclude={"name", "lr"})
    lr = base_rate(recipe, model)
    optimizer = build_optimizer(tune.optimizer.name, list(model.trainable()), lr=lr, **options)
    shape = tune.schedule.model_dump(exclude={"name"})

    def rate(epoch: int) -> float:
        return lr * rate_factor(tune.schedule.name, epoch, tune.epochs, **shape)

    monitor = monitor_of(recipe, sources[1])
    stop = tune.early_stop
    stopping = Stopping(monitor, stop.patience, stop.min_delta) if stop else Stopping(monitor)
    history: list[EpochRow] = []
    best, state = None, {}
    with progress("epochs", tune.epochs) as advance:
        for row, is_best in train_epochs(
            model,
            *sources,
            task=recipe.task,
            loss=build_loss(recipe.task, label_smoothing=tune.label_smoothing),
            judge=build_loss(recipe.task),
            optimizer=optimizer,
            rate=rate,
            epochs=tune.epochs,
            batch_size=tune.batch_size,
            seed=tune.seed,
            stopping=stopping,
            proof=proof,
            clip_norm=tune.clip_norm,
        ):
            history.append(row)
            add_row(folder, row)
            if is_best or best is None:
                best, state = row, _moving(model)
            advance(1)
            on_epoch(row, is_best)
    assert best is not None
    return history, best, state


def monitor_of(recipe: Recipe, val: Source | Samples | None) -> str:
    """Return the value that names the best epoch; without validation images, that of training."""
    monitor = recipe.fine_tune.monitor
    return monitor if val is not None else monitor.replace("val/", "train/")


def _moving(model: CompiledModel) -> dict[str, Tensor]:
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if name not in model.frozen.tensors
    }


def _test_once(
    recipe: Recipe, model: CompiledModel, source: Source | None, say: Say
) -> dict[str, Any] | None:
    """Judge the best weights by test/, where there is one; its labels are used this one time."""
    if source is None:
        return None
    loss, size = build_loss(recipe.task), recipe.features.batch_size
    score = evaluate(model, source, task=recipe.task, loss=loss, batch_size=size)
    say(f"test (used once): accuracy {score.worded()}, loss {score.loss:.4f}")
    return as_data(score)


def _record(
    recipe: Recipe, opened: BaseModel, model: CompiledModel, splits: Splits, best: EpochRow
) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "task": recipe.task,
        "classes": list(splits.classes),
        "preprocessing": opened.preprocessing.to_dict(),
        "chunk_size": recipe.features.batch_size,
        "ancestry": opened.run.as_ancestor() if opened.run else [],
        "seed": recipe.fine_tune.seed,
        "trainable": sum(p.numel() for _, p in model.trainable()),
        "lr": base_rate(recipe, model),
        "monitor": monitor_of(recipe, splits.val),
        "best": {
            "epoch": best.epoch,
            "train": as_data(best.train),
            "val": as_data(best.val) if best.val else None,
        },
        "images": {
            "train": splits.train.counts(),
            "val": splits.val.counts() if splits.val else None,
        },
        "images_sha256": {name: images_digest(split) for name, split in splits.named().items()},
    }


def as_data(score: Score) -> dict[str, Any]:
    """Return a score as plain data, with its interval."""
    low, high = score.interval()
    return {
        "loss": score.loss,
        "accuracy": score.accuracy,
        "n": score.count,
        "interval95": [low, high],
    }
