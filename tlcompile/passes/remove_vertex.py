"""Take a vertex or a region away: replaced by an added one, dropped, or bypassed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from torch import fx

from tlcompile.errors.edits import CannotBypassError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_region, name_of
from tlcompile.graph.surgery import redirect
from tlcompile.passes.base import DOOMED, Pass


@final
@dataclass(frozen=True, kw_only=True)
class RemoveVertex(Pass):
    """Doom a vertex or a region; `drop_dead_vertices` takes it away.

    Attributes:
        vertex: A vertex or a region of the base.
        how: replace: its readers wait for an added vertex of the same name. drop: its edges go
            too. bypass: its readers read what it read.

    After:  1. No concatenation reads a dropped vertex.
            2. Nothing outside reads a bypassed region.
    """

    name: ClassVar[str] = "remove_vertex"

    vertex: str
    how: Literal["replace", "drop", "bypass"]

    def apply(self, model_graph: ModelGraph) -> None:
        """Doom the region."""
        region = find_region(model_graph.graph, model_graph.module, model_graph.model, self.vertex)
        for node in region:
            node.meta[DOOMED] = self.key
            model_graph.dropped[name_of(node)] = f"{self.how} {self.vertex}"
        if self.how == "bypass":
            self._bypass(region)
        elif self.how == "drop":
            for node in region:
                _leave_concatenations(node)

    def _bypass(self, region: list[fx.Node]) -> None:
        entering, leaving = crossing(region)
        if len(entering) != 1 or len(leaving) != 1:
            raise CannotBypassError(
                name=self.vertex,
                entering=tuple(map(name_of, entering)),
                leaving=tuple(map(name_of, leaving)),
            )
        outside = [reader for reader in leaving[0].users if reader not in region]
        redirect(outside, leaving[0], entering[0])

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield readers of a bypassed region."""
        region = find_region(model_graph.graph, model_graph.module, model_graph.model, self.vertex)
        for node in region if self.how == "bypass" else ():
            for reader in node.users:
                if DOOMED not in reader.meta:
                    yield f"nothing reads the bypassed '{name_of(node)}'"


def crossing(region: list[fx.Node]) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the vertices that a region reads from outside, and its own that are read outside."""
    inside = set(region)
    entering = [s for node in region for s in node.all_input_nodes if s not in inside]
    leaving = [node for node in region if any(reader not in inside for reader in node.users)]
    return list(dict.fromkeys(entering)), leaving


def _leave_concatenations(node: fx.Node) -> None:
    """Take a vertex out of the lists of its readers, as long as something stays in them."""
    for reader in list(node.users):
        inputs = reader.args[0] if reader.args else None
        if isinstance(inputs, list | tuple) and node in inputs and len(inputs) > 1:
            kept = [source for source in inputs if source is not node]
            reader.args = (kept, *reader.args[1:])
            redirect([reader], node, node)
