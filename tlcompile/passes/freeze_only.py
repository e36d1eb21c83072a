"""Stop learning in single vertices; gradients pass through to what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_matching, find_region, name_of
from tlcompile.passes.base import Pass


@final
@dataclass(frozen=True, kw_only=True)
class FreezeOnly(Pass):
    """Mark every vertex of a region as frozen alone (DL4J's FrozenLayerWithBackprop).

    Attributes:
        vertex: A vertex, a region, or ("match", pattern).

    After:  1. Its ancestors stay as they were; it is never part of the frozen prefix by itself.
    """

    name: ClassVar[str] = "freeze_only"

    vertex: str | tuple[str, str]

    def apply(self, model_graph: ModelGraph) -> None:
        """Mark the vertices."""
        region = lone_vertices(model_graph, self.vertex)
        if isinstance(self.vertex, tuple):
            names = ", ".join(map(name_of, region))
            model_graph.notes.append(f"freeze match '{self.vertex[1]}': {names}")
        model_graph.frozen_alone |= {name_of(node) for node in region}


def lone_vertices(model_graph: ModelGraph, point: str | tuple[str, str]) -> list[fx.Node]:
    """Return the vertices that an entry of `freeze.only` stands for.

    Raises:
        GraphError: It names or matches nothing.
    """
    if isinstance(point, tuple):
        return find_matching(model_graph.graph, model_graph.model, point[1])
    return find_region(model_graph.graph, model_graph.module, model_graph.model, point)
