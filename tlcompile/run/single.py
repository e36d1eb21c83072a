"""One run on the terminal: the plan, a line an epoch, where the results are, what to type next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tlcompile.errors.resume import OtherRunError
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import find_generation, next_generation, run_folder
from tlcompile.run.launch import Job, launch_ranks, num_devices, refuse_other_count
from tlcompile.run.report import page_line
from tlcompile.run.say import say
from tlcompile.run.train import train_recipe
from tlcompile.training.metrics import Score
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.state import EpochRow


def run_single(
    recipe: Recipe,
    *,
    again: bool = False,
    never_anew: bool = False,
    inexact: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train a recipe into its folder, go on there, or say that it is finished; return its record.

    Args:
        recipe: What the user asked for.
        again: Train it anew, in a folder beside it, where it is finished or cannot go on.
        never_anew: Fail rather than start over a run whose checkpoints cannot be used.
        inexact: Go on under other versions or on another machine, too.
        ranks: Where torchrun started several processes: this one is the first of them.
    """
    folder, record = find_generation(run_folder(recipe), again=again)
    if record is not None:
        say(f"{folder} is finished: {best_line(record)}")
        say("(--again trains it anew, in a folder beside it)")
        ranks.first_says(None)  # nothing to do
        return record
    try:
        how = {"never_anew": never_anew, "inexact": inexact}
        return train_on(Job(recipe, folder, how), ranks)
    except OtherRunError as error:
        if not again or ranks.world > 1:
            raise
        say(f"{error.headline()}: it stays, and another begins beside it")
        return train_on(Job(recipe, next_generation(run_folder(recipe)), {}), ranks)


def train_on(job: Job, ranks: Ranks) -> dict[str, Any]:
    """Train on the devices that the recipe names, or with the ranks that are there already."""
    if ranks.world > 1:
        refuse_other_count(job.recipe, ranks.world)
        ranks.first_says(job.as_data())
        return train_job(job, ranks)
    devices = num_devices(job.recipe)
    return train_job(job, ranks) if devices == 1 else launch_ranks(job, devices)


def train_job(job: Job, ranks: Ranks) -> dict[str, Any]:
    """Train into a folder; end with what to type next. A point of a sweep says less."""
    recipe, folder = job.recipe, job.folder
    how: dict[str, Any] = {**job.options, "ranks": ranks, "say": say}
    if how.get("swept"):
        return train_recipe(recipe, folder, **how).record
    result = train_recipe(recipe, folder, show=say, on_epoch=_say_epoch, **how)
    say("")
    say(f"best        {best_line(result.record)}")
    files = "metrics.csv, record.json, plan.txt, tensors.csv, bundle/ (best), last/"
    say(f"results     {folder}: {files}")
    if ranks.is_first:
        say(page_line(folder, result.models))
    for line in next_commands(recipe, folder, thaw=bool(result.model.frozen.tensors)):
        say(line)
    return result.record


def _say_epoch(row: EpochRow, is_best: bool) -> None:
    val = f"  val {row.val.brief()}" if row.val else ""
    rest = f"lr {row.lr:.2g}  {row.seconds:.2f} s{'  best' if is_best else ''}"
    say(f"epoch {row.epoch:>3}  train {row.train.brief()}{val}  {rest}")


def best_line(record: dict[str, Any]) -> str:
    """Word the best epoch of a record."""
    best = record["best"]
    split = "val" if best["val"] else "train"
    return f"epoch {best['epoch']}: {split} {Score.from_data(best[split]).headline()}"


def next_commands(recipe: Recipe, folder: Path, *, thaw: bool) -> list[str]:
    """Return the three commands that one types next.

    The run's own recipe.yaml has every override in it. `thaw`: whether something is still frozen.
    """
    own = f"tlcompile train {shlex.quote(str(folder / 'recipe.yaml'))}"
    if recipe.run.output_dir != "runs":
        own += f" output_dir={shlex.quote(recipe.run.output_dir)}"
    # Nothing frozen, no features: their lines would have no effect then. Phases have a freeze each.
    idle = " '~features'" if recipe.features.only_with_a_frozen_part() else ""
    idle += " '~fine_tune.phases'" if recipe.fine_tune.phases is not None else ""
    last = (
        {f"{own} freeze=none fine_tune.optimizer.lr=1e-4{idle}": "train every layer"}
        if thaw
        else {f"{own} -m fine_tune.seed=0,1,2": "see how much the seed matters"}
    )
    where = shlex.quote(str(folder))
    commands = {
        f"tlcompile predict {where} IMAGE_OR_FOLDER": "what is on an image",
        f"tlcompile evaluate {where} FOLDER": "judge it on other images",
        **last,
    }
    width = max(map(len, commands))
    lines = [f"{command:<{width}}  # {why}" for command, why in commands.items()]
    return [f"{word:<12}{line}" for word, line in zip(["next", "", ""], lines, strict=True)]
