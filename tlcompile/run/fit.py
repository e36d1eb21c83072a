"""Compile and train a recipe, once or at every point of a sweep (-m). Hydra launches both."""

from __future__ import annotations

import argparse
from functools import partial

from tlcompile.errors.recipe import OverrideSyntaxError
from tlcompile.recipe.overrides import is_sweep, split_arguments
from tlcompile.run.app import launch, open_session
from tlcompile.run.single import run_single
from tlcompile.run.sweep import run_points


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; overrides and flags may stand in any order behind the recipe."""
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument("-m", "--multirun", action="store_true", help="key=a,b,c is a sweep")
    parser.add_argument(
        "--again", action="store_true", help="train a finished run anew, in a folder beside it"
    )
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, metavar="key=value",
        help="overrides, and the options above in any order",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Launch through Hydra."""
    overrides, for_hydra, flags = split_arguments(options.rest)
    again = options.again or "--again" in flags
    session = open_session(
        options.recipe,
        overrides,
        run_one=partial(run_single, again=again),
        run_points=partial(run_points, again=again),
    )
    multirun = options.multirun or not {"-m", "--multirun"}.isdisjoint(flags)
    if multirun and not any(map(is_sweep, overrides)) and not for_hydra:
        raise OverrideSyntaxError(
            text="-m",
            reason="no override has several values",
            advice="for example freeze.upto=stage1,stage2 -m",
        )
    launch(session, overrides, for_hydra, multirun)
    return 0
