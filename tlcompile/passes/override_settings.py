"""Give dropouts and activations of the base other settings, where they train in some phase."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.errors.base import listed
from tlcompile.errors.edits import NoEffectError
from tlcompile.graph.head import DROPOUTS, find_head, is_activation
from tlcompile.graph.in_mode import FunctionInMode
from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.reach import descendants
from tlcompile.graph.shapes import kind_of
from tlcompile.passes.base import Pass

# Functions, not modules: they need no place in the tree, where one module may serve frozen vertices
# and trainable ones.
FUNCTIONS: Final[dict[str, Callable[..., torch.Tensor]]] = {
    "relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu,
    "celu": F.celu, "gelu": F.gelu, "silu": F.silu, "mish": F.mish, "softplus": F.softplus,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "hardtanh": F.hardtanh,
    "hardshrink": F.hardshrink, "softshrink": F.softshrink, "tanhshrink": F.tanhshrink,
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "logsigmoid": F.logsigmoid,
    "softsign": F.softsign, "identity": torch.positive,
}  # fmt: skip

_NORMALISING = {"softmax", "log_softmax", "Softmax", "Softmax2d", "Softmin", "LogSoftmax", "GLU"}
_GATES = {"sigmoid", "hardsigmoid", "Sigmoid", "Hardsigmoid"}
_PRODUCTS = {operator.mul, torch.mul, "mul"}


@final
@dataclass(frozen=True, kw_only=True)
class OverrideSettings(Pass):
    """Change what layers of the base do, not what they know; what is frozen throughout is spared.

    Attributes:
        vertices: Of the base; from `overridable`. Those that an edit took away are passed over.
        dropout: Drop probability of their dropouts; None: as they are.
        activation: Function in the place of their activations; None: as they are.

    After:  1. Their dropouts have this probability.
            2. Their activations are this function.
    """

    name: ClassVar[str] = "override_settings"

    vertices: tuple[str, ...]
    dropout: float | None = None
    activation: str | None = None

    def apply(self, model_graph: ModelGraph) -> None:
        """Change the settings."""
        for word, value, change in (
            ("dropout", self.dropout, self._drop),
            ("activation", self.activation, self._activate),
        ):
            if value is not None:
                changed = [
                    name_of(node) for node in self._own(model_graph) if change(model_graph, node)
                ]
                if not changed:
                    raise self._no_effect(word)
                model_graph.notes.append(f"override: {word} {value} at {listed(changed)}")

    def _own(self, model_graph: ModelGraph) -> list[fx.Node]:
        names = model_graph.names()
        found = [names[vertex] for vertex in self.vertices if vertex in names]
        return [node for node in found if node.meta.get(FRESH) != "added"]

    def _no_effect(self, word: str) -> NoEffectError:
        kinds = {"dropout": "dropout", "activation": "activation between its layers"}
        return NoEffectError(
            line=f"fine_tune.override.{word}",
            because=f"no {kinds[word]} of the base trains in any phase",
            instead=f"drop fine_tune.override.{word}, freeze less, or give it to an added layer",
            key=(*self.key, word),
        )

    def _drop(self, model_graph: ModelGraph, node: fx.Node) -> bool:
        """Set the probability of a vertex' dropouts; return whether it has any."""
        if _drops_by_function(model_graph, node):
            node.kwargs = {**node.kwargs, "p": self.dropout}
            return True
        held = dropouts_in(model_graph, node)
        for module in held:
            module.p = self.dropout  # type: ignore[assignment]
        return bool(held)

    def _activate(self, model_graph: ModelGraph, node: fx.Node) -> bool:
        """Exchange an activation; return whether it is one."""
        if not is_hidden_activation(model_graph, node):
            return False
        assert self.activation is not None
        (source,) = node.all_input_nodes
        node.op, node.target = "call_function", FUNCTIONS[self.activation]
        node.args, node.kwargs = (source,), {}
        return True

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield dropouts of another probability, and other activations."""
        for node in self._own(model_graph):
            others = [m for m in dropouts_in(model_graph, node) if m.p != self.dropout]
            if self.dropout is not None and others:
                yield f"the dropouts of '{name_of(node)}' have p = {self.dropout}"
            old = is_hidden_activation(model_graph, node)
            if old and self.activation and node.target is not FUNCTIONS[self.activation]:
                yield f"'{name_of(node)}' is {self.activation}"


def overridable(base: ModelGraph, frozen: Collection[str]) -> tuple[str, ...]:
    """Return the dropouts and hidden activations of a base outside of what is frozen."""
    head = find_head(base)
    behind = descendants(head.classifiers) if head is not None else set()
    return tuple(
        name
        for name, node in base.names().items()
        if name not in frozen
        and (
            _drops_by_function(base, node)
            or dropouts_in(base, node)
            or (node not in behind and is_hidden_activation(base, node))
        )
    )


def dropouts_in(model_graph: ModelGraph, node: fx.Node) -> list[nn.Module]:
    """Return the dropout modules of a vertex: itself, or inside it."""
    if node.op != "call_module":
        return []
    module = model_graph.module.get_submodule(str(node.target))
    return [m for m in module.modules() if isinstance(m, (*DROPOUTS, nn.FeatureAlphaDropout))]


def _drops_by_function(model_graph: ModelGraph, node: fx.Node) -> bool:
    """Tell whether a vertex is F.dropout or the like, called by the root itself."""
    if node.op != "call_module" or "p" not in node.kwargs:
        return False
    module = model_graph.module.get_submodule(str(node.target))
    return isinstance(module, FunctionInMode) and "dropout" in module.function.__name__


def is_hidden_activation(model_graph: ModelGraph, node: fx.Node) -> bool:
    """Tell whether a vertex is an activation between layers: no softmax, no gate, no weights.

    A gate is a sigmoid that something is multiplied with: squeeze-and-excitation, x * sigmoid(x).
    """
    chosen = node.op == "call_function" and node.target in FUNCTIONS.values()
    if not (chosen or is_activation(model_graph, node)) or len(node.all_input_nodes) != 1:
        return False
    kind = kind_of(model_graph.module, node)
    gate = kind in _GATES and any(reader.target in _PRODUCTS for reader in node.users)
    return not gate and kind not in _NORMALISING


def probability(dropout: Any) -> float | None:
    """Return the drop probability that a recipe's word stands for."""
    return 0.0 if dropout == "none" else dropout
