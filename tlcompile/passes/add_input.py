"""Add an input of the model beside the base's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from tlcompile.errors.edits import BadNameError, NameTakenError
from tlcompile.graph.model_graph import EDITED, FRESH, ModelGraph
from tlcompile.graph.names import VERTEX
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.surgery import check_name, check_place
from tlcompile.passes.base import Pass


@final
@dataclass(frozen=True, kw_only=True)
class AddInput(Pass):
    """Add one argument behind those that the model has.

    Attributes:
        vertex: Its name, in the graph and as an argument of the model.
        shape: Of one sample, without the batch.
        dtype: In torch's words.

    After:  1. The model takes it, and it has a shape; what it had taken comes before.
    """

    name: ClassVar[str] = "add_input"

    vertex: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def apply(self, model_graph: ModelGraph) -> None:
        """Insert a placeholder behind the last one."""
        check_name(self.vertex)
        if not self.vertex.isidentifier():
            raise BadNameError(name=self.vertex, reason="an input is an argument, without dots")
        if any(v == self.vertex or v.startswith(f"{self.vertex}.") for v in model_graph.names()):
            raise NameTakenError(name=self.vertex)
        check_place(model_graph.module, self.vertex)
        taken = [node for node in model_graph.graph.nodes if node.op == "placeholder"]
        with model_graph.graph.inserting_after(taken[-1]):
            node = model_graph.graph.placeholder(self.vertex)
        node.meta[VERTEX] = self.vertex
        node.meta[FRESH] = "added"
        node.meta[EDITED] = self.key
        model_graph.sample_shapes[self.vertex] = self.shape
        model_graph.dtypes[self.vertex] = self.dtype
        record_shapes(model_graph, [node])

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield that it is missing, or not the last argument so far."""
        taken = [str(node.target) for node in model_graph.vertices() if node.op == "placeholder"]
        if taken[-1] != self.vertex:
            yield f"'{self.vertex}' is the last input"
