"""Show what would happen: vertices kept, removed, added, frozen; what trains, at which rate."""

from __future__ import annotations

import argparse
import json

from tlcompile.run import check
from tlcompile.run.plan import COLUMNS, Plan, folded, make_plan, summary_lines
from tlcompile.run.say import say, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    check.add_arguments(parser)
    parser.add_argument("--full", action="store_true", help="every vertex, not one line a module")


def run(options: argparse.Namespace) -> int:
    """Print the plan."""
    proof = check.prove(options.recipe, options.overrides, options.classes)
    plan = make_plan(proof.recipe, proof.model)
    if options.json:
        say(json.dumps({"classes": proof.classes, **plan.as_json()}, indent=1))
        return 0
    rows = _every(plan) if options.full else folded(plan)
    title = f"{proof.recipe.name}: {proof.model.summary.model}"
    table(title, COLUMNS, rows)
    say("")
    for line in [*summary_lines(proof.recipe, plan), *check.unknown_line(proof)]:
        say(line)
    return 0


def _every(plan: Plan) -> list[tuple[str, str, str, str, str]]:
    return [
        (r.name, r.kind, r.shape, f"{r.num_parameters:,}", f"{r.origin}{', frozen' * r.frozen}")
        for r in plan.rows
    ]
