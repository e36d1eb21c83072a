"""Prove a recipe without weights or data: names, shapes, widths; every problem at once."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tlcompile.recipe.load import load_recipe
from tlcompile.run.importing import importing
from tlcompile.run.say import say

if TYPE_CHECKING:
    from tlcompile.run.prove import Proof


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that check and plan share."""
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train")
    parser.add_argument(
        "--classes", type=int, metavar="N", help="number of classes, if only data tell"
    )
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def prove(path: str, overrides: list[str], classes: int | None) -> Proof:
    """Load a recipe and compile it, without weights or data."""
    recipe = load_recipe(path, overrides)
    # Behind it, because torch takes seconds to import, and a recipe that does not read needs none.
    with importing():
        from tlcompile.run.prove import compile_phases

    return compile_phases(recipe, classes)


def unproved_lines(proof: Proof) -> list[str]:
    """Say that the number of classes is a placeholder, if it is, and which data are not there."""
    from tlcompile.run.splits import absent

    unknown = ["classes     unknown (--classes N)"] if proof.classes is None else []
    return unknown + [f"note        {line}" for line in absent(proof.recipe)]


def run(options: argparse.Namespace) -> int:
    """Print one line, or data."""
    proof = prove(options.recipe, options.overrides, options.classes)
    from tlcompile.run.prove import refuse_unfit

    refuse_unfit(proof)
    trainable = sum(p.numel() for _, p in proof.model.trainable())
    frozen = sum(p.numel() for p in proof.model.parameters()) - trainable
    if options.json:
        facts = {"ok": True, "classes": proof.classes, "trainable": trainable, "frozen": frozen}
        say(json.dumps(facts))
        return 0
    say(f"{options.recipe}: ok, {trainable:,} parameters train, {frozen:,} are frozen")
    for line in unproved_lines(proof):
        say(line)
    return 0
