"""Compile and train a recipe, once or at every point of a sweep (-m). Hydra launches both."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from typing import Any

from tlcompile.errors.ranks import SweepUnderTorchrunError
from tlcompile.errors.recipe import OverrideSyntaxError
from tlcompile.recipe.layers.plugins import allowed_plugins
from tlcompile.recipe.overrides import is_sweep, split_arguments
from tlcompile.run.app import launch, open_session
from tlcompile.run.ranks import compose_once
from tlcompile.run.single import run_single
from tlcompile.run.sweep import refuse_failed, run_points
from tlcompile.training.ranks import ALONE, Ranks, is_rank

# An unfinished run goes on without any of them.
FLAGS = {
    "--again": "train a finished run anew, in a folder beside it",
    "--resume": "never start over: fail where checkpoints are there and cannot be used",
    "--inexact": "go on under other versions or on another machine: last bits may differ",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; overrides and flags may stand in any order behind the recipe."""
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument("-m", "--multirun", action="store_true", help="key=a,b,c is a sweep")
    for flag, what in FLAGS.items():
        parser.add_argument(flag, action="store_true", help=what)
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="key=value",
        help="overrides, and the options above in any order",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Launch through Hydra."""
    overrides, for_hydra, flags = split_arguments(options.rest)
    given = {flag: flag in flags or getattr(options, flag[2:]) for flag in FLAGS}
    how: dict[str, Any] = {
        "again": given["--again"],
        "never_anew": given["--resume"],
        "inexact": given["--inexact"],
    }
    multirun = options.multirun or not {"-m", "--multirun"}.isdisjoint(flags)
    if multirun and not any(map(is_sweep, overrides)) and not for_hydra:
        raise OverrideSyntaxError(
            text="-m",
            reason="no override has several values",
            advice="for example freeze.upto=stage1,stage2 -m",
        )

    def compose(ranks: Ranks) -> None:
        session = open_session(
            options.recipe,
            overrides,
            run_one=partial(run_single, **how, ranks=ranks),
            run_points=partial(run_points, command=typed_sweep(options), **how),
        )
        if multirun and ranks.world > 1:
            raise SweepUnderTorchrunError(world=ranks.world)
        results = launch(session, overrides, for_hydra, multirun)
        if multirun and results:
            refuse_failed(results[-1])

    if is_rank():
        return compose_once(compose)
    compose(ALONE)
    return 0


def typed_sweep(options: argparse.Namespace) -> str:
    """Return the command of a sweep, quoted for a shell; without FLAGS, which say how this time goes."""
    plugins = [word for name in allowed_plugins() for word in ("--allow-plugin", name)]
    flags = {"-m", "--multirun", *FLAGS}
    rest = [word for word in options.rest if word not in flags]
    return shlex.join(["tlcompile", "train", *plugins, options.recipe, "-m", *rest])
