"""A model as a graph over one module tree. Every tensor of the tree lives on the meta device."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

from tlcompile.errors.base import listed, one_line
from tlcompile.errors.graph import NotTraceableError
from tlcompile.graph import functions
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
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    dtypes: dict[str, str] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

    def vertices(self) -> Iterator[fx.Node]:
        """Yield every vertex in the order of computation; the output node is none."""
        return (node for node in self.graph.nodes if node.op != "output")

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


def without_inplace(graph: fx.Graph, module: nn.Module, model: str = "model") -> None:
    """Make every operation out of place; who reads its input afterwards reads its result.

    Raises:
        NotTraceableError: It writes into memory that another vertex, a view, is read from later.

    Later in-place operations overwrite recorded vertices in 16 of 20 models and would corrupt
    cached features; taking them away is neutral to the bit in 20 of 20.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    numbers = _numbers(graph)
    for node in graph.nodes:
        _refuse_out(node, model)
        if _made_out_of_place(node, module):
            written = node.all_input_nodes[0]
            if written in numbers:
                continue  # `n += 1` makes another number
            refuse_shared_memory(node, written, order, module, model)
            for reader in [r for r in written.users if order[r] > order[node]]:
                reader.replace_input_with(written, node)
    for child in module.modules():
        if getattr(child, "inplace", False):
            child.inplace = False  # type: ignore[assignment]


def _refuse_out(node: fx.Node, model: str) -> None:
    """Refuse `out=`: who reads the tensor that is written into would not read this vertex."""
    if isinstance(node.kwargs.get("out"), fx.Node) and node.op != "call_module":
        raise NotTraceableError(
            model=model,
            reason=f"'{node.name}' writes into '{node.kwargs['out']}', by out=",
            wanted="operations that return what they compute",
            advice=f"take what '{node.name}' returns, and drop out=",
        )


def _numbers(graph: fx.Graph) -> set[fx.Node]:
    """Return the vertices that are sizes, or computed from sizes alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        word = str(getattr(node.target, "__name__", node.target))
        size = node.op == "call_method" and word in ("size", "dim", "numel", "nelement")
        shape = word == "getattr" and node.args[1] in ("shape", "ndim")
        of_torch = str(getattr(node.target, "__module__", "")).startswith("torch")
        reads = node.all_input_nodes if node.op == "call_function" and not of_torch else []
        if size or shape or (reads and found.issuperset(reads)):
            found.add(node)
    return found


def refuse_shared_memory(
    node: fx.Node, written: fx.Node, order: dict[fx.Node, int], module: nn.Module, model: str
) -> None:
    """Refuse a write that a view made earlier would show to a later reader."""
    root = written
    while _is_view(root, module):
        root = root.all_input_nodes[0]
    if root.op == "get_attr":
        raise NotTraceableError(
            model=model,
            reason=f"'{node.name}' writes into '{root.target}', which the model keeps",
            wanted="a forward that changes no parameter and no buffer",
            advice=f"put what changes '{root.target}' into a module of its own",
        )
    group, waiting = {root}, [root]
    while waiting:
        views = [r for r in waiting.pop().users if _is_view(r, module) and order[r] < order[node]]
        waiting += [view for view in views if view not in group]
        group |= set(views)
    for other in group - {written}:
        late = [r for r in other.users if order[r] > order[node] and r is not node]
        if late:
            raise NotTraceableError(
                model=model,
                reason=f"'{node.name}' writes into '{written.name}', which '{other.name}' shares",
                wanted="no writing in place where a view of the same memory is read later",
                advice=f"write '{node.name}' out of place (inplace=False)",
            )


_VIEWS = {
    "adjoint", "as_strided", "broadcast_to", "chunk", "contiguous", "detach", "diagonal", "double",
    "dropout", "dsplit", "expand", "expand_as", "flatten", "float", "getitem", "half", "hsplit",
    "imag", "moveaxis", "movedim", "narrow", "permute", "ravel", "real", "reshape", "select",
    "split", "split_with_sizes", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "to",
    "transpose", "type", "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
    "view_as_complex", "view_as_real", "vsplit",
}  # fmt: skip
_VIEW_ATTRIBUTES = {"data", "T", "mT", "H", "mH", "real", "imag"}


def _is_view(node: fx.Node, module: nn.Module) -> bool:
    """Tell whether a vertex may share memory with what it reads."""
    if node.op == "call_module":
        found = module.get_submodule(str(node.target))
        # A dropout returns its input in eval mode; what is not torch's own may do so, too (DropPath).
        views = isinstance(found, nn.Flatten | nn.Unflatten | nn.Identity | _DropoutNd)
        own = type(found).__module__.startswith("torch.nn.modules.")
        return views or not (own or any(True for _ in found.parameters()))
    if node.target is getattr:
        return node.args[1] in _VIEW_ATTRIBUTES
    word = str(getattr(node.target, "__name__", node.target))
    return node.op in ("call_function", "call_method") and word in _VIEWS


def _made_out_of_place(node: fx.Node, module: nn.Module) -> bool:
    """Return whether a node wrote into its first input; functions and methods do not any more."""
    target: Any = node.target
    match node.op:
        case "call_module":
            return bool(getattr(module.get_submodule(target), "inplace", False))
        case "call_method":
            return _method_out_of_place(node, target)
        case "call_function" if target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[target]
            return True
        case "call_function" if _writes(word := _torch_name(target)):
            plain = _plain_function(word)
            if plain is None:
                return _on_a_copy(node, word) if hasattr(torch.Tensor, word) else False
            node.target = plain
            return True
        case "call_function" if getattr(target, "__module__", "") == "torch.nn.functional":
            given = inspect.signature(target).bind(*node.args, **node.kwargs).arguments
            if given.get("inplace"):
                node.args, node.kwargs = (), {**given, "inplace": False}
                return True
    return False


def _writes(word: str) -> bool:
    """Tell whether torch's name of an operation says that it writes into its first input."""
    return word.endswith("_") and not word.endswith("__")


def _torch_name(function: Any) -> str:
    """Return the name of a function of torch; of others (operator.not_) it says nothing."""
    home = str(getattr(function, "__module__", None) or "torch")
    return str(getattr(function, "__name__", "")) if home.startswith("torch") else ""


def _plain_function(word: str) -> Any:
    """Return torch's function that does the same out of place, if there is one."""
    homes = (torch.nn.functional, torch)
    return next((f for h in homes if callable(f := getattr(h, word[:-1], None))), None)


# Not the same without the underscore (bernoulli_), or about the tensor and not its values.
_OTHER_WITHOUT = {"bernoulli_", "resize_", "set_"}
_NO_WRITES = {"requires_grad_", "share_memory_"}


def _method_out_of_place(node: fx.Node, word: str) -> bool:
    if not _writes(word) or word in _NO_WRITES:
        return False
    if word in _OTHER_WITHOUT or not callable(getattr(torch.Tensor, word[:-1], None)):
        return _on_a_copy(node, word)
    node.target = word[:-1]
    return True


def _on_a_copy(node: fx.Node, word: str) -> bool:
    """Let a write that has no function out of place (normal_, zero_, copy_) happen to a copy."""
    node.op, node.target = "call_function", functions.on_a_copy
    node.args = (word, *node.args)
    return True


_OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.imod: operator.mod,
    operator.ipow: operator.pow,
    operator.iand: operator.and_,
    operator.ior: operator.or_,
    operator.ixor: operator.xor,
    torch.relu_: torch.relu,
    torch.nn.functional.relu_: torch.nn.functional.relu,
}


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
