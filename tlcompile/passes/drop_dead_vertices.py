"""Take away what no output needs, and the weights that nothing uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx

from tlcompile.errors.edits import DanglingError, NoEffectError
from tlcompile.graph.model_graph import EDITED, FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.program import is_assertion
from tlcompile.graph.reach import ancestors
from tlcompile.graph.surgery import delete_unused
from tlcompile.passes.base import DOOMED, Pass


@final
@dataclass(frozen=True, kw_only=True)
class DropDeadVertices(Pass):
    """Erase every vertex that the output does not read, on any path.

    Before: 1. No output reads a removed vertex, and every added vertex is read.
    After:  1. Every vertex is an ancestor of the output, an input, or an assertion.
            2. Every weight belongs to a vertex.
    """

    name: ClassVar[str] = "drop_dead_vertices"

    def apply(self, model_graph: ModelGraph) -> None:
        """Erase dead vertices from the end to the start."""
        alive = ancestors([model_graph.output()])
        self._refuse_dangling(alive)
        for node in reversed(list(model_graph.graph.nodes)):
            if node in alive or node.op == "output":
                continue
            if node.op == "placeholder" and FRESH not in node.meta:
                continue  # the model is called as the base is
            if is_assertion(node) and ancestors([node]) - {node} <= alive:
                continue
            if FRESH in node.meta and not _only_follows(node):
                raise self._without_effect(node)
            if DOOMED not in node.meta:
                model_graph.dropped.setdefault(name_of(node), "nothing reads it any more")
            model_graph.graph.erase_node(node)
        delete_unused(model_graph)

    def _refuse_dangling(self, alive: set[fx.Node]) -> None:
        for node in alive:
            if DOOMED in node.meta:
                readers = sorted(
                    "output" if r.op == "output" else name_of(r)
                    for r in node.users
                    if r in alive and DOOMED not in r.meta
                )
                if readers:
                    removed = name_of(node)
                    key = node.meta[DOOMED]
                    line = str(key[1]) if key[:1] == ("remove",) else ""
                    found = [n for n in node.graph.nodes if FRESH in n.meta and not n.users]
                    raise DanglingError(
                        removed=removed,
                        readers=tuple(readers),
                        line=line,
                        unread=name_of(found[-1]) if found else "VERTEX",
                        key=key,
                    )

    def _without_effect(self, node: fx.Node) -> NoEffectError:
        added = node.meta[FRESH] == "added"
        if node.op == "placeholder":
            return NoEffectError(
                line=f"inputs: {name_of(node)}",
                because=f"no vertex on the way to an output reads '{name_of(node)}'",
                instead=f"name it under the inputs of an added layer, or drop {name_of(node)}",
                key=node.meta[EDITED],
            )
        if node.meta[FRESH] == "resized":
            return NoEffectError(
                line=f"resize: {name_of(node)}",
                because=f"no output reads '{name_of(node)}'",
                instead="drop the line",
                key=node.meta[EDITED],
            )
        return NoEffectError(
            line=f"add: {name_of(node)}" if added else "head: auto",
            because=f"no output reads '{name_of(node)}'",
            instead="name a reader under feeds, or name it under outputs"
            if added
            else "drop the line",
            key=node.meta[EDITED],
        )

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield vertices that are removed or read by nothing, and still there; weights too."""
        alive = ancestors([model_graph.output()])
        for node in model_graph.vertices():
            if node not in alive and node.op != "placeholder" and not is_assertion(node):
                yield f"an output reads '{name_of(node)}'"
            if DOOMED in node.meta:
                yield f"the removed '{name_of(node)}' is gone"
        targets = tuple(str(node.target) for node in model_graph.vertices())
        for name, _ in model_graph.module.named_parameters():
            if not any(name == target or name.startswith(f"{target}.") for target in targets):
                yield f"a vertex uses '{name}'"


def _only_follows(node: fx.Node) -> bool:
    """Tell whether a vertex was resized because another line's layer was."""
    if node.meta[FRESH] != "resized":
        return False
    written, name = str(node.meta[EDITED][1]), name_of(node)
    return name != written and not name.startswith(f"{written}.")
