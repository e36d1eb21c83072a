"""Find the classifier: the last vertex with parameters on the way to the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.program import owned
from tlcompile.graph.reach import ancestors, descendants, last_parametric

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

_ACTIVATION_FUNCTIONS = {
    "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hardswish", "hardsigmoid", "tanh",
    "sigmoid", "softmax", "log_softmax",
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """The classifier and what stands around it.

    Attributes:
        classifiers: The last vertices with parameters before the output; several where they stand
            side by side (lraspp adds two), else one.
        features: What each reads, walked back over the dropout directly before it.
        vertices: The head: that dropout, the classifiers, and everything after them.
    """

    classifiers: tuple[fx.Node, ...]
    features: tuple[fx.Node, ...]
    vertices: tuple[fx.Node, ...]

    @property
    def classifier(self) -> fx.Node:
        """The last of them."""
        return self.classifiers[-1]


def main_output(model_graph: ModelGraph) -> fx.Node:
    """Return what eval mode returns; of segmentation's dictionary the entry `out`."""
    if model_graph.eval_output is not None:
        return model_graph.eval_output
    returned: Any = model_graph.output().args[0]
    if isinstance(returned, dict) and isinstance(returned.get("out"), fx.Node):
        node: fx.Node = returned["out"]
        return node
    return model_graph.output()


def find_head(model_graph: ModelGraph) -> Head | None:
    """Return the base's head on the way to what eval mode returns; None: nothing has parameters."""
    end = main_output(model_graph)
    owners = {
        node
        for node in model_graph.vertices()
        if owned(model_graph.module, node) and node.meta.get(FRESH) != "added"
    }
    last = last_parametric(end, owners)
    if last is None or not last.all_input_nodes:
        return None
    classifiers = _side_by_side(model_graph, end, owners) or (last,)
    features: dict[fx.Node, None] = {}
    before: dict[fx.Node, None] = {}
    for classifier in classifiers:
        feature = classifier.all_input_nodes[0]
        while is_dropout(model_graph, feature):
            before[feature] = None
            feature = feature.all_input_nodes[0]
        features[feature] = None
    after = (descendants(classifiers) & ancestors([end])) | before.keys()
    behind = tuple(n for n in model_graph.vertices() if n in after)
    return Head(classifiers, tuple(features), behind)


def _side_by_side(
    model_graph: ModelGraph, end: fx.Node, owners: set[fx.Node]
) -> tuple[fx.Node, ...]:
    """Return the vertices with parameters that the output reads first, if all are classifiers."""
    found: set[fx.Node] = set()
    seen: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node in owners:
            found.add(node)
        elif node not in seen:
            seen.add(node)
            waiting += node.all_input_nodes
    if not all(_is_classifier(model_graph, node) for node in found):
        return ()
    return tuple(node for node in model_graph.vertices() if node in found)


def _is_classifier(model_graph: ModelGraph, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    module = model_graph.module.get_submodule(str(node.target))
    return isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1}
    )


def is_dropout(model_graph: ModelGraph, node: fx.Node) -> bool:
    """Tell whether a vertex is a dropout layer."""
    return node.op == "call_module" and isinstance(
        model_graph.module.get_submodule(str(node.target)), DROPOUTS
    )


def is_activation(model_graph: ModelGraph, node: fx.Node) -> bool:
    """Tell whether a vertex is an activation without parameters, as module or function."""
    if node.op == "call_module":
        module = model_graph.module.get_submodule(str(node.target))
        own = type(module).__module__ == "torch.nn.modules.activation"
        return own and not any(True for _ in module.parameters())
    return node.op in ("call_function", "call_method") and _word(node) in _ACTIVATION_FUNCTIONS


def _word(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")
