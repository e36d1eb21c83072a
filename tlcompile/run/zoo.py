"""List the base models, or show the vertices and stages of one: the names that recipes use."""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlcompile.compiler import start
from tlcompile.errors.base import listed
from tlcompile.errors.weights import UnknownModelError
from tlcompile.graph.head import find_head
from tlcompile.graph.names import name_of
from tlcompile.graph.stages import find_stages
from tlcompile.model.compiled import VertexRow
from tlcompile.model.summary import counted
from tlcompile.recipe.schema import Base, Recipe
from tlcompile.run.say import say, show_number, table
from tlcompile.zoo.open import all_model_names, open_base

COLUMNS = ("vertex", "what", "shape", "reads", "parameters", "FLOPs", "bytes an image", "stage")
LARGE = 60  # vertices; a larger model is shown module by module


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        help="a base model, a finished run's folder, or a pattern such as 'resnet*'",
    )
    parser.add_argument("--full", action="store_true", help="every vertex of a large model")
    parser.add_argument("--json", action="store_true", help="print data, every vertex of it")


def run(options: argparse.Namespace) -> int:
    """Print names, or one model's vertices."""
    names = all_model_names(like=options.model or "")
    if options.model is None or any(c in options.model for c in "*?["):
        found = fnmatch.filter(names, options.model or "*")
        if not found:
            raise UnknownModelError(name=options.model, models=tuple(names))
        say(json.dumps(found) if options.json else "\n".join(found))
        return 0
    rows, stages = vertices_of(base_named(options.model))
    if options.json:
        say(json.dumps([_data(row, stages) for row in rows]))
        return 0
    groups = (
        [[row] for row in rows] if options.full or len(rows) <= LARGE else _folded(rows, stages)
    )
    table(f"{options.model}: freeze up to any vertex, region or stage", *_table(groups, stages))
    numel, flops = (sum(getattr(r, name) for r in rows) for name in ("num_parameters", "flops"))
    say(f"{len(rows)} vertices, {numel:,} parameters, {show_number(flops, 'FLOPs')} an image")
    say("A name that is a prefix (layer4) is a region: as a freeze point, its last vertex.")
    if len(groups) < len(rows):
        say("--full shows every vertex.")
    return 0


def base_named(name: str) -> Base:
    """Return the base that a model's name or a run's folder stands for.

    Raises:
        UnknownModelError: Neither the zoo nor the disk has it.
    """
    if Path(name).is_dir():
        return Base(run=name)
    names = all_model_names(like=name)
    if name not in names:
        raise UnknownModelError(name=name, models=tuple(names))
    return Base(model=name)


def vertices_of(base: Base) -> tuple[list[VertexRow], dict[str, str]]:
    """Return a row for each vertex of a base, from shapes alone, and the stage that each ends."""
    model_graph, _ = start(open_base(Recipe(base=base), load=False))
    stages = {name_of(node): stage for stage, node in find_stages(model_graph).items()}
    head = find_head(model_graph)
    if head is not None:
        stages |= {name_of(node): "head" for node in head.vertices}
    return list(counted(model_graph)), stages


def _folded(rows: Sequence[VertexRow], stages: Mapping[str, str]) -> list[list[VertexRow]]:
    """Put runs of one outermost module together; a stage ends its run."""
    groups: list[list[VertexRow]] = []
    for row in rows:
        last = groups[-1][-1] if groups else None
        joins = last is not None and _outer(last) == _outer(row) and last.name not in stages
        if joins and stages.get(row.name) != "head":
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _outer(row: VertexRow) -> str:
    return row.name.split(".")[0]


def _table(
    groups: Sequence[Sequence[VertexRow]], stages: Mapping[str, str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and cells; a group has the name of its last vertex, as a freeze point has."""
    home = {row.name: group[-1].name for group in groups for row in group}
    cells: list[tuple[str, ...]] = []
    above = ""
    for group in groups:
        last = group[-1]
        own = {row.name for row in group}
        read = dict.fromkeys(home[n] for row in group for n in row.reads if n not in own)
        cells.append(
            (
                last.name,
                last.kind if len(group) == 1 else f"{len(group)} vertices",
                last.shape,
                "" if list(read) == [above] else listed(list(read), 3),
                f"{sum(row.num_parameters for row in group):,}",
                show_number(sum(row.flops for row in group)),
                f"{last.num_bytes:,}",
                stages.get(last.name, ""),
            )
        )
        above = last.name
    if any(row[3] for row in cells):
        return COLUMNS, cells
    return (*COLUMNS[:3], *COLUMNS[4:]), [(*row[:3], *row[4:]) for row in cells]


def _data(row: VertexRow, stages: Mapping[str, str]) -> dict[str, object]:
    return {
        "vertex": row.name,
        "what": row.kind,
        "shape": row.shape,
        "reads": list(row.reads),
        "parameters": row.num_parameters,
        "flops": row.flops,
        "bytes": row.num_bytes,
        "stage": stages.get(row.name, ""),
    }
