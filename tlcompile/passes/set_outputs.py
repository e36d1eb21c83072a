"""Choose what the model returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx

from tlcompile.errors.edits import DanglingError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_vertex, name_of
from tlcompile.passes.base import DOOMED, Pass


@final
@dataclass(frozen=True, kw_only=True)
class SetOutputs(Pass):
    """Return one vertex as a tensor, or several as a dict keyed by name, in this order.

    Attributes:
        vertices: What is returned; none: what eval mode of the base returns, alone.

    After:  1. The output reads these vertices and no other.
    """

    name: ClassVar[str] = "set_outputs"

    vertices: tuple[str, ...] = ()

    def apply(self, model_graph: ModelGraph) -> None:
        """Rewire the output."""
        if model_graph.eval_output is not None:
            model_graph.output().args = (model_graph.eval_output,)
            model_graph.eval_output = None
            model_graph.notes.append("auxiliary heads are dropped: the recipe edits the model")
        if not self.vertices:
            return
        nodes = {
            name: self._find(model_graph, name, index) for index, name in enumerate(self.vertices)
        }
        returned = nodes if len(nodes) > 1 else next(iter(nodes.values()))
        model_graph.output().args = (returned,)

    def _find(self, model_graph: ModelGraph, name: str, index: int) -> fx.Node:
        with self.reading(index):
            node = find_vertex(model_graph.graph, model_graph.module, model_graph.model, name)
            if DOOMED in node.meta:
                raise DanglingError(removed=name_of(node), readers=("outputs",))
        return node
