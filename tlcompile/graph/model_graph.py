"""A model as a graph over one module tree. Every tensor of the tree lives on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn

from tlcompile.errors.base import listed, one_line
from tlcompile.errors.graph import NotTraceableError
from tlcompile.graph.in_place import without_inplace
from tlcompile.graph.initialise import Builder
from tlcompile.graph.names import VERTEX, assign_names
from tlcompile.graph.resized import ResizedParameter
from tlcompile.graph.trace import Trace, trace_module
from tlcompile.zoo.base import BaseModel

FRESH = (
    "fresh"  # node.meta key: why a vertex' weights are new ("added", "replaced", "resized", ...)
)
FED = "fed"  # node.meta key: what stands in, by `feeds`, for each vertex that it read
EDITED = "edited"  # node.meta key: the line of the recipe because of which its inputs changed


@dataclass(frozen=True)
class Tap:
    """Another freeze point of the same model, whose boundary is computed in the same pass.

    Attributes:
        frozen: Names of the vertices that are frozen there.
        frozen_alone: Those that do not learn there while gradients pass through them.
    """

    frozen: frozenset[str]
    frozen_alone: frozenset[str]


@dataclass
class ModelGraph:
    """What the passes edit.

    Attributes:
        model: The base model's name, for messages.
        module: The module tree, on meta. Names and order of its tensors are the base's.
        graph: One vertex a node; `node.meta["vertex"]` is its name.
        eval_output: What eval mode returns where train mode returns more; else None.
        sample_shapes: Shape of one sample of each input, without the batch.
        native_shapes: The same for the size that the base was made for; stages belong to it.
        builders: For each new module or bare parameter, by target: builds it with real tensors.
        frozen: Names of frozen vertices; gradients and statistics stop here.
        frozen_alone: Names of vertices that do not learn while gradients pass through them.
        taps: Freeze points behind which the cut lies; none: behind what is frozen, all at once.
        dropped: Vertices that an edit took away, with the reason.
        notes: Sentences for the plan.
        dtypes: Of inputs that are not float32, in torch's words.
        constants: Tensors that the forward itself writes down, by the name of their vertex.
    """

    model: str
    module: nn.Module
    graph: fx.Graph
    eval_output: fx.Node | None
    sample_shapes: dict[str, tuple[int, ...]]
    native_shapes: dict[str, tuple[int, ...]]
    builders: dict[str, Builder | ResizedParameter] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    frozen_alone: set[str] = field(default_factory=set)
    taps: list[Tap] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dtypes: dict[str, str] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

    def vertices(self) -> Iterator[fx.Node]:
        """Yield every vertex in the order of computation; the output node is none."""
        return (node for node in self.graph.nodes if node.op != "output")

    def at(self, tap: Tap) -> ModelGraph:
        """Return the same graph and modules with what is frozen at another freeze point."""
        return replace(self, frozen={*tap.frozen}, frozen_alone={*tap.frozen_alone}, taps=[])

    def output(self) -> fx.Node:
        """Return the node that returns."""
        node: fx.Node = next(iter(reversed(self.graph.nodes)))
        return node

    def names(self) -> dict[str, fx.Node]:
        """Return vertex by name, in the order of computation."""
        return {node.meta[VERTEX]: node for node in self.vertices()}


def meta_twin(module: nn.Module) -> nn.Module:
    """Copy a module tree with every tensor on meta; real memory is not touched."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        twin = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        memo[id(parameter)] = twin
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(module, memo)


def graph_of_base(base: BaseModel) -> ModelGraph:
    """Return the graph of an opened base; see `graph_of`."""
    native = base.native_shape or base.sample_shape
    declared = {name: one.shape for name, one in base.inputs.items()}
    shapes, natives = {"x": base.sample_shape, **declared}, {"x": native, **declared}
    model_graph = graph_of(base.module, base.name, shapes, natives)
    model_graph.dtypes |= {
        name: one.dtype for name, one in base.inputs.items() if name in model_graph.sample_shapes
    }
    return model_graph


def graph_of(
    module: nn.Module,
    model: str,
    sample_shapes: dict[str, tuple[int, ...]],
    native_shapes: dict[str, tuple[int, ...]] | None = None,
) -> ModelGraph:
    """Trace a module's meta twin, name its vertices and take its in-place operations away.

    Args:
        module: The base; it is neither changed nor referred to afterwards.
        model: Its name, for messages.
        sample_shapes: Shape of one sample of each input, without the batch, by name; an input that
            is not named takes the first shape that is left.
        native_shapes: The shapes that the base was made for; None: the same.

    Raises:
        NotTraceableError: Its forward depends on values of the data, or takes other inputs.
    """
    twin = meta_twin(module)
    trace = trace_module(twin, model, sample_shapes)
    graph = trace.graph
    fx.GraphModule(twin, graph)  # gives the graph an owner, which dead-code elimination needs
    assign_names(graph)
    constants = _adopt_constants(graph, twin, module)
    without_inplace(graph, twin, model)
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
    for node in [n for n in graph.nodes if n.op == "placeholder" and not n.users]:
        graph.erase_node(node)
    names = [str(node.target) for node in inputs]
    shapes = _by_name(model, names, sample_shapes)
    native = _by_name(model, names, native_shapes or sample_shapes)
    eval_output = trace.eval_output if trace.extra_outputs else None
    assert eval_output is None or isinstance(eval_output, fx.Node)
    notes = list(_untraced_notes(trace, twin))
    return ModelGraph(
        model, twin, graph, eval_output, shapes, native, notes=notes, constants=constants
    )


def _untraced_notes(trace: Trace, module: nn.Module) -> Iterator[str]:
    """Name the modules that are one vertex because their forward cannot be traced."""
    called = [str(node.target) for node in trace.graph.nodes if node.op == "call_module"]
    for kind, reason in trace.untraced.items():
        names = [name for name in called if type(module.get_submodule(name)) is kind]
        if names:
            why = f"a {kind.__name__} cannot be traced ({one_line(reason)})"
            yield f"one vertex each, as {why}: {listed(names)}"


def _by_name(
    model: str, names: list[str], given: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Give each input its shape: by name, and the one that is not named what is left."""
    unnamed = [name for name in names if name not in given]
    left = [shape for name, shape in given.items() if name not in names]
    if len(unnamed) > min(1, len(left)) or not names:
        several = f"its forward reads {len(names)} inputs: {', '.join(names)}"
        example = f"inputs: {{{unnamed[-1] if unnamed else 'x'}: {{shape: [4]}}}}"
        raise NotTraceableError(
            model=model,
            reason=several,
            wanted="one input, an image, or a shape for each further one",
            advice=f"write {example}, with the shape of one sample",
        )
    return {name: given[name] if name in given else left[0] for name in names}


def _adopt_constants(
    graph: fx.Graph, twin: nn.Module, module: nn.Module
) -> dict[str, torch.Tensor]:
    """Make plain tensors that a forward reads buffers of the twin, outside of the state dict.

    Returns:
        Those that the forward writes itself (torch.tensor(0.5)), which the module does not hold.
    """
    written: dict[str, torch.Tensor] = {}
    for node in [n for n in graph.nodes if n.op == "get_attr"]:
        path, _, name = str(node.target).rpartition(".")
        owner = twin.get_submodule(path)
        value = getattr(owner, name)
        if isinstance(value, torch.Tensor) and name in vars(owner):
            delattr(owner, name)
            owner.register_buffer(name, value.to("meta"), persistent=False)
            if not hasattr(module.get_submodule(path), name):
                written[str(node.target)] = value
    return written
