"""List the base models, or show the vertices and stages of one: the names that recipes use."""

from __future__ import annotations

import argparse
import fnmatch
import json

from tlcompile.errors.weights import UnknownModelError
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import graph_of_base
from tlcompile.graph.names import name_of
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.stages import find_stages
from tlcompile.model.summary import counted
from tlcompile.recipe.schema import Base, Recipe
from tlcompile.run.say import say, table
from tlcompile.zoo.open import all_model_names, open_base

COLUMNS = ("vertex", "what", "shape", "parameters", "MFLOPs", "bytes an image", "stage")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", nargs="?", help="a base model, or a pattern such as 'resnet*'")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")


def run(options: argparse.Namespace) -> int:
    """Print names, or one model's vertices."""
    names = all_model_names(like=options.model or "")
    if options.model is None or any(c in options.model for c in "*?["):
        found = fnmatch.filter(names, options.model or "*")
        if not found:
            raise UnknownModelError(name=options.model, models=tuple(names))
        say(json.dumps(found) if options.json else "\n".join(found))
        return 0
    if options.model not in names:
        raise UnknownModelError(name=options.model, models=tuple(names))
    rows = vertex_rows(options.model)
    if options.json:
        say(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows]))
    else:
        shown = [(*row[:3], f"{row[3]:,}", f"{row[4]:,.2f}", f"{row[5]:,}", row[6]) for row in rows]
        table(f"{options.model}: freeze up to any vertex, region or stage", COLUMNS, shown)
        say("A name that is a prefix (layer4) is a region: as a freeze point, its last vertex.")
    return 0


def vertex_rows(model: str) -> list[tuple[str, str, str, int, float, int, str]]:
    """Return a row for each vertex of a base model, from shapes alone."""
    recipe = Recipe(base=Base(model=model))
    opened = open_base(recipe, load=False)
    model_graph = graph_of_base(opened)
    record_shapes(model_graph)
    stages = {name_of(node): stage for stage, node in find_stages(model_graph).items()}
    head = find_head(model_graph)
    if head is not None:
        stages |= {name_of(node): "head" for node in head.vertices}
    return [
        (
            row.name,
            row.kind,
            row.shape,
            row.num_parameters,
            row.flops / 1e6,
            row.num_bytes,
            stages.get(row.name, ""),
        )
        for row in counted(model_graph)
    ]
