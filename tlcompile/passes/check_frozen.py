"""Refuse what is random and frozen, and modules used on both sides of the freeze point."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx, nn

from tlcompile.errors.edits import FrozenEditError
from tlcompile.errors.graph import BatchStatisticsError, RandomVertexError, SharedModuleError
from tlcompile.graph.head import DROPOUTS
from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.program import own_modules
from tlcompile.graph.randomness import draws_random_numbers
from tlcompile.graph.shapes import attribute_at, kind_of, record_shapes
from tlcompile.passes.base import Pass

RANDOM = (*DROPOUTS, nn.FeatureAlphaDropout, nn.RReLU)


@final
@dataclass(frozen=True, kw_only=True)
class CheckFrozen(Pass):
    """Check the frozen part after all edits.

    Attributes:
        points: The freeze points as written, for the message.

    After:  1. Frozen vertices are the base's own, with the base's weights.
            2. Every vertex that a frozen one reads is frozen.
            3. No module with weights or randomness is called on both sides.
            4. No frozen vertex draws random numbers, or normalises by the statistics of its batch.
    """

    name: ClassVar[str] = "check_frozen"

    points: tuple[str, ...]

    def apply(self, model_graph: ModelGraph) -> None:
        """Check, and forget vertices that are gone."""
        names = model_graph.names()
        for name, node in names.items():
            if name in _stopped(model_graph) and FRESH in node.meta:
                raise self._refusal(model_graph, node)
            if name in model_graph.frozen:
                for source in node.all_input_nodes:
                    if name_of(source) not in model_graph.frozen:
                        raise self._refusal(model_graph, source)
        self._refuse_random(model_graph)
        model_graph.frozen &= set(names)
        model_graph.frozen_alone &= set(names)
        self._refuse_shared(model_graph)

    def _refusal(self, model_graph: ModelGraph, node: fx.Node) -> FrozenEditError:
        before = [
            name_of(source)
            for source in node.all_input_nodes
            if name_of(source) in model_graph.frozen and source.op != "placeholder"
        ]
        alone = (
            name_of(node) not in model_graph.frozen and name_of(node) in model_graph.frozen_alone
        )
        return FrozenEditError(
            alone=alone,
            key=("freeze", "only") if alone else (),
            name=name_of(node),
            edit=str(node.meta.get(FRESH, "fed by what is added")),
            inside=" and ".join(self.points),
            instead=("head",) if "all" in self.points else tuple(before),
        )

    def _refuse_random(self, model_graph: ModelGraph) -> None:
        """Refuse F.dropout and the like: features would be one draw, kept for ever."""
        model_graph.module.eval()
        record_shapes(model_graph)
        for name, node in model_graph.names().items():
            if name not in model_graph.frozen:
                continue
            if draws_random_numbers(model_graph, node):
                raise RandomVertexError(name=name, kind=kind_of(model_graph.module, node))
            if _normalises_by_batch(model_graph.module, node):
                raise BatchStatisticsError(name=name, kind=kind_of(model_graph.module, node))

    def _refuse_shared(self, model_graph: ModelGraph) -> None:
        """Refuse one module or parameter on both sides: it cannot move and stand still."""
        frozen: dict[int, fx.Node] = {}
        trainable: dict[int, fx.Node] = {}
        targets = {str(n.target) for n in model_graph.vertices() if n.op == "call_module"}
        for node in model_graph.vertices():
            side = frozen if name_of(node) in _stopped(model_graph) else trainable
            for shared in _moving_parts(model_graph.module, node, targets):
                side.setdefault(id(shared), node)
        for both in frozen.keys() & trainable.keys():
            raise SharedModuleError(
                module=str(frozen[both].target),
                frozen=name_of(frozen[both]),
                trainable=name_of(trainable[both]),
            )


def _stopped(model_graph: ModelGraph) -> set[str]:
    return model_graph.frozen | model_graph.frozen_alone


def _normalises_by_batch(root: nn.Module, node: fx.Node) -> bool:
    """Tell whether a vertex has a batch norm that uses its batch in eval mode, too."""
    if node.op != "call_module":
        return False
    return any(
        isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
        for module in root.get_submodule(str(node.target)).modules()
    )


def _moving_parts(
    root: nn.Module, node: fx.Node, targets: Collection[str]
) -> list[nn.Module | nn.Parameter]:
    """Return the parameters of a vertex, and its module where training makes a difference to it."""
    if node.op not in ("call_module", "get_attr"):
        return []
    found = attribute_at(root, str(node.target))
    if not isinstance(found, nn.Module):
        return [found] if isinstance(found, nn.Parameter) else []
    of_torch = type(found).__module__.startswith("torch.nn.modules.")
    own = list(own_modules(root, str(node.target), targets))
    held = [t for m in own for t in (*m._parameters.values(), *m._buffers.values())]
    steady = of_torch and not isinstance(found, RANDOM) and not any(t is not None for t in held)
    parameters = [p for module in own for p in module.parameters(recurse=False)]
    return [*parameters, *(() if steady else (found,))]
