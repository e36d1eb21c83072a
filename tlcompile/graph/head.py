"""Find the classifier: the last vertex with parameters on the way to the output."""

from __future__ import annotations

from dataclasses import dataclass

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
        classifier: The last vertex with parameters before the output.
        feature: What it reads, walked back over the dropout directly before it.
        vertices: The head: that dropout, the classifier, and everything after it.
    """

    classifier: fx.Node
    feature: fx.Node
    vertices: tuple[fx.Node, ...]


def find_head(model_graph: ModelGraph) -> Head | None:
    """Return the base's head on the way to what eval mode returns; None: nothing has parameters."""
    end = model_graph.eval_output or model_graph.output()
    owners = {
        node
        for node in model_graph.vertices()
        if owned(model_graph.module, node) and node.meta.get(FRESH) != "added"
    }
    classifier = last_parametric(end, owners)
    if classifier is None or not classifier.all_input_nodes:
        return None
    feature = classifier.all_input_nodes[0]
    before: list[fx.Node] = []
    while is_dropout(model_graph, feature):
        before.append(feature)
        feature = feature.all_input_nodes[0]
    after = descendants([classifier]) & ancestors([end])
    behind = [n for n in model_graph.vertices() if n in after]
    return Head(classifier, feature, (*reversed(before), *behind))


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
