"""Stop learning in vertices of the base and in everything that they read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx

from tlcompile.errors.edits import HeadError
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_matching, find_vertex, name_of
from tlcompile.graph.reach import ancestors
from tlcompile.graph.stages import find_stage, refuse_ambiguous
from tlcompile.passes.base import Pass


@final
@dataclass(frozen=True, kw_only=True)
class FreezeUpto(Pass):
    """Mark vertices of the base, and all their ancestors, as frozen.

    Names are looked up in the base, before any edit; `check_frozen` refuses edits inside.

    Attributes:
        points: Vertices or regions (`layer3`: its last vertex), `stage1`..`stage4`, `head` (all
            that the head reads), `none`, `all`; ("vertex", name), ("stage", n) and ("match", pattern)
            say which.

    Before: 1. Each point names something in the base.
    After:  1. Every ancestor of a frozen vertex is frozen.
    """

    name: ClassVar[str] = "freeze_upto"

    points: tuple[str | tuple[str, str], ...]

    def apply(self, model_graph: ModelGraph) -> None:
        """Mark the vertices."""
        ends = [node for point in self.points for node in freeze_ends(model_graph, point)]
        for point in self.points:
            if isinstance(point, tuple) and point[0] == "match":
                names = ", ".join(map(name_of, freeze_ends(model_graph, point)))
                model_graph.notes.append(f"freeze match '{point[1]}': {names}")
        model_graph.frozen |= {name_of(node) for node in ancestors(ends) if node.op != "output"}

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield frozen vertices that read a trainable one."""
        for node in model_graph.vertices():
            if name_of(node) in model_graph.frozen:
                for source in node.all_input_nodes:
                    if name_of(source) not in model_graph.frozen:
                        yield f"'{name_of(source)}', which '{name_of(node)}' reads, is frozen"


def freeze_ends(model_graph: ModelGraph, point: str | tuple[str, str]) -> list[fx.Node]:
    """Return the vertices at which a freeze point ends; none for `none`.

    Raises:
        UnknownVertexError: No vertex, region or stage of that name.
        NoMatchError: No vertex matches that pattern.
        AmbiguousNameError: It is both a vertex and a computed stage, at different places.
    """
    match point:
        case "none":
            return []
        case "all":
            return list(model_graph.vertices())
        case "head":
            head = find_head(model_graph)
            if head is None:
                raise HeadError(model=model_graph.model, reason="no vertex has parameters")
            return list(head.features)
        case ("stage", number):
            return [find_stage(model_graph, f"stage{number}")]
        case ("match", pattern):
            return find_matching(model_graph.graph, model_graph.model, pattern)
        case ("vertex", name):
            return [find_vertex(model_graph.graph, model_graph.module, model_graph.model, name)]
        case str() if point in ("stage1", "stage2", "stage3", "stage4"):
            refuse_ambiguous(model_graph, point)
            return [find_stage(model_graph, point)]
    assert isinstance(point, str)
    return [find_vertex(model_graph.graph, model_graph.module, model_graph.model, point)]
