"""Refuse what is random and frozen, and modules used on both sides of the freeze point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx

from tlcompile.errors.edits import FrozenEditError
from tlcompile.errors.graph import SharedModuleError
from tlcompile.graph.head import DROPOUTS
from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.passes.base import Pass


@final
@dataclass(frozen=True, kw_only=True)
class CheckFrozen(Pass):
    """Check the frozen part after all edits.

    Attributes:
        points: The freeze points as written, for the message.

    After:  1. Frozen vertices are the base's own, with the base's weights.
            2. Every vertex that a frozen one reads is frozen.
            3. No module with weights or randomness is called on both sides.
    """

    name: ClassVar[str] = "check_frozen"

    points: tuple[str, ...]

    def apply(self, model_graph: ModelGraph) -> None:
        """Check, and forget vertices that are gone."""
        names = model_graph.names()
        for name, node in names.items():
            if name in model_graph.frozen | model_graph.frozen_alone and FRESH in node.meta:
                raise self._refusal(model_graph, node)
            if name in model_graph.frozen:
                for source in node.all_input_nodes:
                    if name_of(source) not in model_graph.frozen:
                        raise self._refusal(model_graph, source)
        model_graph.frozen &= set(names)
        model_graph.frozen_alone &= set(names)
        self._refuse_shared(model_graph)

    def _refusal(self, model_graph: ModelGraph, node: fx.Node) -> FrozenEditError:
        before = [name_of(s) for s in node.all_input_nodes if name_of(s) in model_graph.frozen]
        return FrozenEditError(
            name=name_of(node),
            edit=str(node.meta.get(FRESH, "fed by what is added")),
            inside=" and ".join(self.points),
            instead=tuple(before),
        )

    def _refuse_shared(self, model_graph: ModelGraph) -> None:
        frozen: dict[str, fx.Node] = {}
        trainable: dict[str, fx.Node] = {}
        for node in model_graph.vertices():
            if node.op == "call_module":
                side = frozen if name_of(node) in model_graph.frozen else trainable
                side[str(node.target)] = node
        for target in frozen.keys() & trainable.keys():
            module = model_graph.module.get_submodule(target)
            matters = isinstance(module, DROPOUTS) or any(True for _ in module.state_dict())
            if matters:
                raise SharedModuleError(
                    module=target,
                    frozen=name_of(frozen[target]),
                    trainable=name_of(trainable[target]),
                )
