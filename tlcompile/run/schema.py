"""Print the JSON Schema of recipes, from which editors complete and check keys and names."""

from __future__ import annotations

import argparse
import json

from tlcompile.recipe.base_schema import BaseNames, schema_for
from tlcompile.recipe.json_schema import schema_text
from tlcompile.recipe.reference import reference_text
from tlcompile.run.importing import importing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--markdown", action="store_true", help="a table of keys for people")
    kind.add_argument(
        "--base", metavar="MODEL", help="complete the names of one base model, or of a run's folder"
    )


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    if options.base is not None:
        text = json.dumps(schema_for(_names_of(options.base)), indent=1) + "\n"
    else:
        text = reference_text() if options.markdown else schema_text()
    print(text, end="")
    return 0


def _names_of(name: str) -> BaseNames:
    with importing():  # the schema of all recipes needs no torch
        from tlcompile.run.zoo import base_named, vertices_of
    base = base_named(name)
    rows, stages = vertices_of(base)
    shapes = {row.name: row.shape for row in rows}
    members: dict[str, list[str]] = {}
    for row in rows:
        parts = row.name.split(".")
        for depth in range(1, len(parts)):
            members.setdefault(".".join(parts[:depth]), []).append(row.name)
    regions = {
        region: f"{len(inside)} vertices, the last is {inside[-1]} {shapes[inside[-1]]}"
        for region, inside in members.items()
        if region not in shapes
    }
    return BaseNames(
        model=base.model,
        vertices={
            row.name: f"{row.kind} {row.shape}, {row.num_parameters:,} parameters" for row in rows
        },
        regions=dict(sorted(regions.items(), key=lambda item: item[0].count("."))),
        stages={
            stage: f"ends at {vertex} {shapes[vertex]}"
            for vertex, stage in stages.items()
            if stage != "head"
        },
    )
