"""Stop learning in single vertices; gradients pass through to what they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_region, name_of
from tlcompile.passes.base import Pass


@final
@dataclass(frozen=True, kw_only=True)
class FreezeOnly(Pass):
    """Mark every vertex of a region as frozen alone (DL4J's FrozenLayerWithBackprop).

    After:  1. Its ancestors stay as they were; it is never part of the frozen prefix by itself.
    """

    name: ClassVar[str] = "freeze_only"

    vertex: str

    def apply(self, model_graph: ModelGraph) -> None:
        """Mark the vertices."""
        region = find_region(model_graph.graph, model_graph.module, model_graph.model, self.vertex)
        model_graph.frozen_alone |= {name_of(node) for node in region}
