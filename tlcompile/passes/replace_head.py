"""`head: auto`: a classifier of the same kind, as wide as the task needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import fx, nn

from tlcompile.errors.edits import HeadError
from tlcompile.errors.layers import InitRefusedError
from tlcompile.graph.head import Head, find_head, is_activation, main_output
from tlcompile.graph.initialise import NewModule
from tlcompile.graph.model_graph import EDITED, FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.reach import descendants
from tlcompile.graph.shapes import forget_shapes, record_shapes, shape_of, show_shape
from tlcompile.graph.surgery import redirect, set_module
from tlcompile.passes.base import DOOMED, Pass
from tlcompile.recipe.initialisers import Init


@final
@dataclass(frozen=True, kw_only=True)
class ReplaceHead(Pass):
    """Replace the classifier, drop activations behind it, and drop auxiliary heads.

    Outputs are logits. squeezenet1_0 with its last ReLU kept stays at chance in most seeds.

    Attributes:
        classes: Number of logits that the task needs.
        seed: Of its initial weights, together with its name.

    After:  1. The model returns (N, classes), or (N, classes, H, W) where it returned a map; in the
               base's own structure: segmentation's dictionary keeps its entry `out`.
            2. No activation stands between the classifier and the output.
    """

    name: ClassVar[str] = "replace_head"

    classes: int
    seed: int
    init: Init = "default"

    def apply(self, model_graph: ModelGraph) -> None:
        """Replace the classifier."""
        head = find_head(model_graph)
        if head is None:
            raise HeadError(model=model_graph.model, reason="no vertex has parameters")
        self._refuse_shared(model_graph, head)
        self._drop_auxiliary(model_graph)
        returned = main_output(model_graph)
        if returned.op == "output" and isinstance(returned.args[0], fx.Node):
            returned = returned.args[0]
        if returned.op == "output":
            reason = "the model returns several values, not one tensor"
            raise HeadError(model=model_graph.model, reason=reason)
        self._drop_activations(model_graph, head)
        for classifier in head.classifiers:
            self._swap(model_graph, classifier)
        (returned,) = model_graph.output().all_input_nodes
        record_shapes(model_graph, [returned])
        found = shape_of(returned)
        if found is None or len(found) == 2 or found[0] != self.classes:
            shown = " and ".join(f"'{name_of(node)}'" for node in head.classifiers)
            reason = f"with a new {shown} the model returns {show_shape(returned)}"
            raise HeadError(model=model_graph.model, reason=reason)

    def _refuse_shared(self, model_graph: ModelGraph, head: Head) -> None:
        """Refuse a classifier that is called elsewhere, too, or whose weights are read there."""
        targets = {str(node.target) for node in head.classifiers}
        for node in model_graph.vertices():
            target = str(node.target) if node.op in ("call_module", "get_attr") else ""
            used = target in targets or any(target.startswith(f"{t}.") for t in targets)
            if used and node not in head.classifiers and DOOMED not in node.meta:
                reason = f"'{name_of(node)}' uses the weights of '{name_of(head.classifier)}', too"
                raise HeadError(model=model_graph.model, reason=reason)

    def _drop_auxiliary(self, model_graph: ModelGraph) -> None:
        wanted, output = main_output(model_graph), model_graph.output()
        if wanted is output or output.all_input_nodes == [wanted]:
            return
        if model_graph.eval_output is None:
            output.args = ({"out": wanted},)
        else:
            output.args = (wanted,)
            model_graph.eval_output = None
        model_graph.notes.append("auxiliary heads are dropped: the recipe edits the model")

    def _drop_activations(self, model_graph: ModelGraph, head: Head) -> None:
        behind = descendants(head.classifiers)
        for node in head.vertices:
            if node in behind and is_activation(model_graph, node):
                redirect(list(node.users), node, node.all_input_nodes[0])
                node.meta[DOOMED] = self.key
                model_graph.dropped[name_of(node)] = "an activation behind the classifier"

    def _swap(self, model_graph: ModelGraph, node: fx.Node) -> None:
        old = (
            model_graph.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        )
        record_shapes(model_graph, node.all_input_nodes)
        shape = shape_of(node.all_input_nodes[0])
        if shape is None:
            reason = f"what '{name_of(node)}' reads {show_shape(node.all_input_nodes[0])}"
            raise HeadError(model=model_graph.model, reason=reason)
        call: tuple[str, dict[str, Any]]
        match old:
            case nn.Linear():
                call = (
                    "nn.Linear",
                    {
                        "in_features": shape[-1],
                        "out_features": self.classes,
                        "bias": old.bias is not None,
                    },
                )
            case nn.Conv2d() | nn.Conv3d() if set(old.kernel_size) == {1}:
                call = (
                    "nn.Conv3d" if isinstance(old, nn.Conv3d) else "nn.Conv2d",
                    {
                        "in_channels": shape[0],
                        "out_channels": self.classes,
                        "kernel_size": old.kernel_size,
                        "stride": old.stride,
                        "bias": old.bias is not None,
                    },
                )
            case _:
                kind = type(old).__name__ if old is not None else str(node.target)
                reason = f"'{name_of(node)}' is a {kind}"
                raise HeadError(model=model_graph.model, reason=reason)
        target = str(node.target)
        build = NewModule(*call, target, self.seed, self.init)
        try:
            set_module(model_graph.module, target, build.on_meta())
        except InitRefusedError as error:
            error.key = ("fine_tune", "init")
            raise
        model_graph.builders[target] = build
        node.meta[FRESH] = "replaced"
        node.meta[EDITED] = self.key
        forget_shapes(descendants([node]))
