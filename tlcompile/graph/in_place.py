"""Make what torch writes in place out of place, as the graph shows it; graph/writes.py finds the rest."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.dropout import _DropoutNd

from tlcompile.errors.graph import NotTraceableError
from tlcompile.graph import functions


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
