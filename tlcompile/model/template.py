"""A recipe compiled on meta, filled with weights as often as runs want it."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from tlcompile.graph.model_graph import ModelGraph
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.weights import fill


@dataclass(frozen=True)
class Template:
    """A compiled model without weights, and what fills it.

    Attributes:
        model: On meta.
        graph: Its graph, with the builders of new modules.
    """

    model: CompiledModel
    graph: ModelGraph

    def filled(self, base: nn.Module, seed: int, moving: Collection[str]) -> CompiledModel:
        """Return a model as compiling the recipe with this seed gives it, to the bit.

        Args:
            base: The base with its weights, which stay as they are.
            seed: Of the new layers.
            moving: Names of the tensors that will be trained: these are copied, the others shared.
        """
        model = copy.deepcopy(self.model)
        builders = {name: _seeded(build, seed) for name, build in self.graph.builders.items()}
        fill(model, replace(self.graph, builders=builders), base)
        _own(model, moving)
        model.hold_freeze()
        return model


def _seeded(build: Any, seed: int) -> Any:
    return replace(build, seed=seed) if hasattr(build, "seed") else build


def _own(model: CompiledModel, moving: Collection[str]) -> None:
    """Give a model tensors of its own; those that never move keep the memory of the base's.

    Also these are other objects: what is set on a parameter stays with its model.
    """
    made: dict[int, tuple[Tensor, Tensor]] = {}  # by identity: one tensor may have two names
    for path, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    copied = (f"{path}.{name}" if path else name) in moving
                    made[id(tensor)] = tensor, _made(tensor, copied=copied)
                tensors[name] = made[id(tensor)][1]


def _made(tensor: Tensor, *, copied: bool) -> Tensor:
    value = tensor.detach().clone() if copied else tensor.detach()
    return nn.Parameter(value, False) if isinstance(tensor, nn.Parameter) else value
