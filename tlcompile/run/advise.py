"""Say at which freeze point features tell the classes apart, before anything is trained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from tlcompile.errors.recipe import CommandLineError
from tlcompile.recipe.load import default_name, read_recipe, recipe_from
from tlcompile.recipe.overrides import Override, is_sweep, parse_override
from tlcompile.recipe.schema import Recipe
from tlcompile.run.importing import importing
from tlcompile.run.say import say

POINT_KEYS = ("freeze", "freeze.upto")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value",
        help="as for train; freeze.upto=a,b,c are points to compare beside the base's own",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=int, metavar="N",
        help="look at so many training images at most, drawn class by class; default: 1,000",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def run(options: argparse.Namespace) -> int:
    """Print the table and what to type next, or data."""
    if options.images is not None and options.images < 1:
        problem, help_line = f"--images {options.images} are none", "tlcompile advise --help"
        raise CommandLineError(problem=problem, help=help_line)
    recipe, named, others = read_points(options.recipe, options.overrides)
    with importing():  # behind it: torch takes seconds, and a recipe that does not read needs none
        from tlcompile.run.advice_text import advice_data, commands_of, show_advice
        from tlcompile.run.advising import advise
    advice = advise(recipe, named, images=options.images, say=_silent if options.json else say)
    commands = commands_of(advice, recipe, options.recipe, others)
    if options.json:
        say(json.dumps(advice_data(advice, commands), indent=1))
    else:
        show_advice(advice, commands)
    return 0


def read_points(path: str, overrides: Sequence[str]) -> tuple[Recipe, list[Recipe], list[str]]:
    """Read a recipe, and once more for each freeze point that the command line or the file names.

    Returns:
        The recipe, one for each of these points, and the overrides that are left.
    """
    column, parsed = 1, []
    for text in overrides:
        parsed.append(parse_override(text, column))
        column += len(text) + 1
    choices = [_choices(one) if one.key in POINT_KEYS else [one] for one in parsed]
    root, name = read_recipe(path), default_name(path)
    recipes = [recipe_from(root, chosen, name) for chosen in product(*choices)]
    others = [one.text for one in parsed if one.key not in POINT_KEYS]
    if len(others) < len(parsed):
        return recipes[0], recipes, others
    first = recipes[0].phases()[0]
    freezes_upto = not first.freeze.only and first.freeze.upto != ("none",)
    return recipes[0], [first] if freezes_upto else [], others


def _choices(override: Override) -> list[Override]:
    """Return an override with each of its values; range(...) is refused where it is applied."""
    if not is_sweep(override) or override.function:
        return [override]
    return [replace(override, values=(value,)) for value in override.values]


def _silent(_line: str) -> None:
    """Say nothing: data alone go to stdout."""
