"""Show what would happen: vertices kept, removed, added, frozen; what trains, at which rate."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tlcompile.recipe.schema import Recipe
from tlcompile.run import check
from tlcompile.run.picture import write_picture
from tlcompile.run.plan import Plan, make_plan
from tlcompile.run.plan_diff import diff_json, diff_text, differences
from tlcompile.run.plan_text import plan_text
from tlcompile.run.prove import Proof, refuse_unfit
from tlcompile.run.say import say
from tlcompile.run.splits import splits_at_hand
from tlcompile.run.sweep_plan import show_sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    check.add_arguments(parser)
    parser.add_argument(
        "--full", action="store_true", help="every vertex, not one line a module; the removed too"
    )
    parser.add_argument(
        "--diff", metavar="OTHER.yaml", help="what differs between this plan and another recipe's"
    )
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="of a sweep: what its points share"
    )
    parser.add_argument("--html", metavar="FILE.html", help="draw the graph as a page")


def run(options: argparse.Namespace) -> int:
    """Print the plan, of a recipe or of a sweep."""
    if options.multirun:
        return show_sweep(options.recipe, options.overrides, as_json=options.json)
    proof = check.prove(options.recipe, options.overrides, options.classes)
    refuse_unfit(proof)  # what would happen is nothing
    plan = plan_of(proof)
    if options.html is not None:
        write_picture(Path(options.html), proof)
    if options.diff is not None:
        other = check.prove(options.diff, [], options.classes)
        found = differences((proof.recipe, plan), (other.recipe, plan_of(other)))
        say(json.dumps(diff_json(found), indent=1) if options.json else diff_text(found))
    elif options.json:
        say(json.dumps({"classes": proof.classes, **plan.as_json()}, indent=1))
    else:
        say(f"{plan.name}: {plan.model}")
        say(
            "\n".join(
                [plan_text(proof.recipe, plan, full=options.full), *check.unproved_lines(proof)]
            )
        )
    if options.html is not None and not options.json:
        say(f"picture     {options.html}")
    return 0


def plan_of(proof: Proof) -> Plan:
    """Return the plan of a recipe that was proved, with the number of its images where known."""
    channels = next(iter(proof.model.summary.sample_shapes.values()))[0]
    return make_plan(proof.recipe, proof.model, count_images(proof.recipe, channels), proof.later)


def count_images(recipe: Recipe, channels: int) -> dict[str, int] | None:
    """Count the images of a recipe where they are at hand: a plan downloads nothing."""
    found = splits_at_hand(recipe, channels)
    return None if found is None else found.sizes()
