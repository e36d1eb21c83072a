"""Prove a recipe without weights or data: names, shapes, widths; every problem at once."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from tlcompile.compiler import PLACEHOLDER_CLASSES, prove_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.plan import make_plan
from tlcompile.run.refuse import refuse_untrainable
from tlcompile.run.say import say
from tlcompile.run.splits import known_classes


@dataclass(frozen=True)
class Proof:
    """A recipe that was proved, and what is still unknown.

    Attributes:
        recipe: As it was read.
        model: As its first phase has it.
        classes: None: only the images would tell.
        later: The models of the phases behind the first; they differ in what is frozen.
    """

    recipe: Recipe
    model: CompiledModel
    classes: int | None
    later: tuple[CompiledModel, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that check and plan share."""
    parser.add_argument("recipe", help="a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train")
    parser.add_argument(
        "--classes", type=int, metavar="N", help="number of classes, if only data tell"
    )
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def prove(path: str, overrides: list[str], classes: int | None) -> Proof:
    """Load and prove a recipe; unknown classes are replaced by a placeholder."""
    recipe = load_recipe(path, overrides)
    known = classes if classes is not None else known_classes(recipe)
    width = known or PLACEHOLDER_CLASSES
    first, *later = (prove_recipe(phase, num_classes=width) for phase in recipe.phases())
    return Proof(recipe, first, known, tuple(later))


def unknown_line(proof: Proof) -> list[str]:
    """Say that the number of classes is a placeholder, if it is."""
    return ["classes     unknown (--classes N)"] if proof.classes is None else []


def run(options: argparse.Namespace) -> int:
    """Print one line, or data."""
    proof = prove(options.recipe, options.overrides, options.classes)
    models = (proof.model, *proof.later)
    for phase, model in zip(proof.recipe.phases(), models, strict=True):
        refuse_untrainable(phase, model, proof.classes, swept=len(models) > 1)
    plan = make_plan(proof.recipe, proof.model)
    if options.json:
        facts = {"ok": True, "classes": proof.classes, **plan.as_json()["parameters"]}
        say(json.dumps(facts))
        return 0
    say(f"{options.recipe}: ok, {plan.trainable:,} parameters train, {plan.frozen:,} are frozen")
    for line in unknown_line(proof):
        say(line)
    return 0
