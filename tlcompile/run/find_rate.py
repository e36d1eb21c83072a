"""Suggest a learning rate: steps at ever higher rates, on a model of its own that is thrown away."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tlcompile.errors.recipe import CommandLineError
from tlcompile.errors.training import ExtraNotInstalledError
from tlcompile.recipe.load import load_recipe
from tlcompile.run.importing import importing
from tlcompile.run.say import say, table

if TYPE_CHECKING:
    from torch import nn

    from tlcompile.recipe.schema import Recipe
    from tlcompile.training.rate_range import RangeTest

FIRST, LAST, STEPS = 1e-6, 10.0, 100
KINDS = ("svg", "png", "pdf")
ROWS = 15  # of the printed table
BAR = 30  # columns of its longest bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train")
    parser.add_argument("--phase", metavar="NAME", help="of these phases; default: the first")
    for option, name, rate in (("--from", "first", FIRST), ("--to", "last", LAST)):
        parser.add_argument(
            option, dest=name, type=float, default=rate, metavar="RATE", help=f"default: {rate:g}"
        )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    parser.add_argument("--plot", metavar="FILE", help="draw it too: .svg, .png or .pdf")


def run(options: argparse.Namespace) -> int:
    """Print the losses by rate, and the override that sets the suggested one."""
    _refuse_wrong(options)
    recipe = load_recipe(options.recipe, options.overrides)
    index = _phase_index(recipe, options.phase)
    test = find_rate(
        recipe, phase=index, first=options.first, last=options.last, steps=options.steps
    )
    _show(test)
    say("")
    for line in _advice(recipe, index, test):
        say(line)
    if options.plot:
        _draw(test, recipe.name, Path(options.plot))
    return 0


def find_rate(
    recipe: Recipe,
    *,
    base: nn.Module | None = None,
    phase: int = 0,
    first: float = FIRST,
    last: float = LAST,
    steps: int = STEPS,
) -> RangeTest:
    """Run the range test of one phase; nothing that a run has, or the caller, is changed.

    A later phase is tested on the weights before training, with its own freeze point.

    Args:
        recipe: What the user asked for.
        base: Your own module instead of the recipe's base; it is copied first.
        phase: Which one, from 0.
        first: Rate of the first step.
        last: Rate of the last step.
        steps: How many; each takes a batch.

    Raises:
        TLCompileError: Anything that the recipe, the data or the machine has to mend.
    """
    with importing():
        from tlcompile.run.rate_trial import open_trial
        from tlcompile.training.rate_range import run_range_test
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_trial(recipe, Path(scratch), phase, base) as trial,
    ):
        return run_range_test(trial.trainer, base=trial.rate, first=first, last=last, steps=steps)


def _refuse_wrong(options: argparse.Namespace) -> None:
    """Refuse a range that is none, too few steps, and a plot of a kind that is not drawn."""
    help_line = "tlcompile find-rate --help"
    if not 0 < options.first < options.last < float("inf"):
        problem = f"--from {options.first:g} --to {options.last:g} is no range of rates"
        raise CommandLineError(problem=problem, help=help_line)
    if options.steps < 10:
        raise CommandLineError(problem=f"--steps {options.steps} is fewer than 10", help=help_line)
    if options.plot and Path(options.plot).suffix.lstrip(".") not in KINDS:
        problem = f"--plot {options.plot} ends in none of .{', .'.join(KINDS)}"
        raise CommandLineError(problem=problem, help=help_line)
    if options.plot and not _can_draw():
        raise ExtraNotInstalledError(package="matplotlib", extra="report", wanted_by="--plot")


def _can_draw() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def _phase_index(recipe: Recipe, name: str | None) -> int:
    names = [phase.name for phase in recipe.fine_tune.phases or ()]
    if name is None:
        return 0
    if name not in names:
        have = ", ".join(names) if names else "none"
        problem = f"the recipe has no phase '{name}'; its phases: {have}"
        raise CommandLineError(problem=problem, help="tlcompile find-rate --help")
    return names.index(name)


def _show(test: RangeTest) -> None:
    """Print every few steps; the bars reach from the lowest smoothed loss to the highest before it."""
    count = len(test.rates)
    places = sorted({round(n * (count - 1) / (ROWS - 1)) for n in range(ROWS)} | {test.lowest})
    low, high = min(test.smoothed), max(test.smoothed[: test.lowest + 1])
    rows = []
    for place in places:
        share = (test.smoothed[place] - low) / (high - low) if high > low else 0.0
        bar = "#" * max(1, round(BAR * min(share, 1)))
        note = "  <- lowest" if place == test.lowest else ""
        numbers = (
            f"{test.rates[place]:.2g}",
            f"{test.losses[place]:.4f}",
            f"{test.smoothed[place]:.4f}",
        )
        rows.append((*numbers, bar + note))
    table("", ("rate", "loss", "smoothed", ""), rows)


def _advice(recipe: Recipe, index: int, test: RangeTest) -> list[str]:
    if test.suggested is None:
        return ["suggested   none: no rate of the range lowers the loss; try --to, or other data"]
    why = f"a tenth of {test.rates[test.lowest]:.2g}, where the loss is lowest"
    key = f"fine_tune.phases.{index}.lr" if recipe.fine_tune.phases else "fine_tune.optimizer.lr"
    steepest = test.rates[test.steepest]
    return [
        f"suggested   {key}={test.suggested:.2g}",
        f"            ({why}; it falls fastest at {steepest:.2g})",
    ]


def _draw(test: RangeTest, name: str, path: Path) -> None:
    from tlcompile.durable.files import write_file
    from tlcompile.report.rate_plot import draw_rates

    write_file(path, draw_rates(test, f"{name}: loss by learning rate", path.suffix.lstrip(".")))
    say(f"plot        {path}")
