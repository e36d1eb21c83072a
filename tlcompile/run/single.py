"""One run on the terminal: the plan, a line an epoch, where the results are, what to type next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import METRICS, next_generation, read_record, run_folder
from tlcompile.run.say import say
from tlcompile.run.train import train_recipe
from tlcompile.training.loop import EpochRow


def run_single(recipe: Recipe, *, again: bool) -> dict[str, Any]:
    """Train a recipe into its folder, or say that it is finished; return its record."""
    folder = run_folder(recipe)
    record = read_record(folder)
    if record is not None and not again:
        say(f"{folder} is finished: {best_line(record)}")
        say("(--again trains it anew, in a folder beside it)")
        return record
    if record is not None:
        folder = next_generation(folder)
    elif (folder / METRICS).exists():
        say(f"{folder} holds an unfinished run: it starts over")
    result = train_recipe(recipe, folder, say=say, show=say, on_epoch=_say_epoch)
    say("")
    say(f"best        {best_line(result.record)}")
    files = "metrics.csv, record.json, plan.txt, tensors.csv, bundle/ (best), last/"
    say(f"results     {folder}: {files}")
    for line in next_commands(recipe, folder, thaw=bool(result.model.frozen.tensors)):
        say(line)
    return result.record


def _say_epoch(row: EpochRow, is_best: bool) -> None:
    val = f"  val loss {row.val.loss:.4f} accuracy {row.val.accuracy:.3f}" if row.val else ""
    say(
        f"epoch {row.epoch:>3}  train loss {row.train.loss:.4f} accuracy {row.train.accuracy:.3f}"
        f"{val}  lr {row.lr:.2g}  {row.seconds:.2f} s{'  best' if is_best else ''}"
    )


def best_line(record: dict[str, Any]) -> str:
    """Word the best epoch of a record."""
    best = record["best"]
    split = "val" if best["val"] else "train"
    score = best[split]
    low, high = score["interval95"]
    return (
        f"epoch {best['epoch']}: {split} accuracy {100 * score['accuracy']:.1f} % "
        f"(n = {score['n']}, 95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )


def next_commands(recipe: Recipe, folder: Path, *, thaw: bool) -> list[str]:
    """Return the three commands that one types next.

    The run's own recipe.yaml has every override in it. `thaw`: whether something is still frozen.
    """
    own = f"tlcompile train {shlex.quote(str(folder / 'recipe.yaml'))}"
    if recipe.run.output_dir != "runs":
        own += f" output_dir={shlex.quote(recipe.run.output_dir)}"
    # Nothing frozen, no features: their lines would have no effect then.
    idle = " '~features'" if recipe.features.only_with_a_frozen_part() else ""
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
