"""Trace a module into one graph that is right in train mode and in eval mode.

Knows nothing of recipes. Facts behind the method: a plain trace of 24 of torchvision's 80 classifiers
is silently wrong in the other mode, because `training` is baked into a function's arguments.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from tlcompile.errors.graph import NotTraceableError
from tlcompile.graph.answers import Inputs, answer
from tlcompile.graph.in_mode import follow_mode
from tlcompile.graph.lost import (
    Lost,
    contexts,
    refuse_context,
    refuse_writing,
    watching,
    written_constant,
)

CONSTANT = "constant"  # node.meta key: the values of a tensor that a forward writes down
CALLER = "caller"  # node.meta key: qualified name of the module whose forward made the node

# Children of a container are called one by one, so a container is never one vertex.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Trace:
    """A graph over a module's own tree.

    Attributes:
        graph: The train-mode graph, equal to the eval-mode graph but for `extra_outputs`.
        eval_output: What eval mode returns, as a node of `graph`.
        extra_outputs: True where train mode returns more (auxiliary heads of googlenet, inception_v3).
        untraced: Kinds of modules that are one vertex because their forward cannot be written as a
            graph, with the reason.
    """

    graph: fx.Graph
    eval_output: fx.node.Argument
    extra_outputs: bool
    untraced: dict[type[nn.Module], str]


class _CannotTrace(Exception):  # noqa: N818, it is an answer, not an error
    """The innermost module whose own forward cannot be traced; the root: nothing can be done."""

    def __init__(self, kind: type[nn.Module], reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class _Asked(Exception):  # noqa: N818, it is a question, not an error
    """The root's forward asks something; nothing can be computed while it is traced."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__()
        self.node = node


class _Proxy(fx.Proxy):
    """A value of the trace. torch.fx would record `a += b` as `a + b`, which leaves `a` as it was."""


def _record_in_place(name: str) -> None:
    """Let `a += b` be recorded as such; the vertex is called `add`, as torchvision calls it."""
    operation = getattr(operator, f"i{name}")

    def write(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operation, (self, other), {}, name=name)

    setattr(_Proxy, f"__i{name}__", write)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    _record_in_place(_name)


class _Tracer(fx.Tracer):
    """Record the calling module of each node; keep leaves that a graph cannot hold."""

    # Without this, buffers are evaluated while tracing: maxvit_t gains 44 attributes on the user's module.
    proxy_buffer_attributes = True

    def __init__(
        self, leaf_types: frozenset[type[nn.Module]], inputs: Inputs, answers: list[bool]
    ) -> None:
        super().__init__()
        self.leaf_types = leaf_types
        self.inputs = inputs
        self.answers = answers
        self.asked = 0
        self.callers = [""]
        self.outside = contexts()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m) in self.leaf_types or _has_hooks(m):
            return True  # hooks run with the module, not while it is traced
        if super().is_leaf_module(m, module_qualified_name):
            return True
        # A subclass of a torch.nn layer (LayerNorm2d) bakes sizes into a graph; a leaf can be resized.
        return _is_layer(m) and not isinstance(m, CONTAINERS)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Make an input of each argument without a default; the others keep theirs."""
        del is_module, concrete_args
        _, *parameters = inspect.signature(root_fn).parameters.values()
        named = [p for p in parameters if p.kind not in _VARIABLE]
        declared = list(self.inputs)[1:]
        read = [p for p in named if p.default is p.empty or p.name in declared] or named[:1]
        first: list[fx.Proxy] = []
        by_name: dict[str, fx.Proxy] = {}
        for parameter in read:
            proxy = self.create_proxy("placeholder", parameter.name, (), {})
            if parameter.kind is parameter.POSITIONAL_ONLY:
                first.append(proxy)
            else:
                by_name[parameter.name] = proxy
        return lambda *args: root_fn(*args, **by_name), [self.root, *first]

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Answer what the root asks about sizes, and let the graph hold it to the answer.

        A question about values has no answer; below the root it makes the asking module a leaf.
        """
        if self.callers[-1]:
            return bool(super().to_bool(obj))
        if self.asked == len(self.answers):
            raise _Asked(obj.node)
        answer = self.answers[self.asked]
        self.asked += 1
        held = obj if answer else self.create_proxy("call_function", operator.not_, (obj,), {})
        words = "images of another size take another way through this model"
        self.create_proxy("call_function", torch._assert, (held, words), {})
        return answer

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        refuse_context(self.outside)  # before the callee is entered: the block is the caller's
        path = self.path_of_module(m)
        if self.is_leaf_module(m, path):
            return super().call_module(m, forward, args, kwargs)
        self.callers.append(path)
        try:
            with watching(m):
                return super().call_module(m, forward, args, kwargs)
        except _CannotTrace:
            raise
        except Exception as cause:  # a forward raises whatever its own code happens to say
            if isinstance(m, CONTAINERS):
                raise
            raise _CannotTrace(type(m), _first_line(cause)) from cause
        finally:
            self.callers.pop()

    def create_node(self, kind: str, target: Any, args: Any, *rest: Any, **kwargs: Any) -> fx.Node:
        refuse_context(self.outside)
        if self.callers[-1]:  # the root's own writes are refused later, with the vertex' name
            refuse_writing(kind, target, args)
        node = super().create_node(kind, target, args, *rest, **kwargs)
        node.meta[CALLER] = self.callers[-1]
        return node


def _has_hooks(module: nn.Module) -> bool:
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


def _is_layer(module: nn.Module) -> bool:
    """Tell whether a module is, or derives from, one of torch.nn's own layers and has no children."""
    own = any(
        base.__module__.startswith("torch.nn") and base is not nn.Module
        for base in type(module).__mro__
    )
    return own and not any(True for _ in module.children())


def trace_module(root: nn.Module, name: str, inputs: Inputs) -> Trace:
    """Trace a module once for both modes.

    Trace in train and in eval mode; where the two first differ, make the type of the deepest module
    common to the two callers a leaf, and trace again. If that module is the root, the model has
    outputs that exist in train mode only: the train graph is kept, with the eval output marked.
    A type whose forward cannot be traced is made a leaf in the same way. Functions that the root
    tells `self.training` become modules.

    Args:
        root: The module, on any device; its mode is restored, nothing else is touched.
        name: What to call it in an error.
        inputs: Shape of one sample by name, the image first. Arguments of these names are read,
            beside those that have no default.

    Raises:
        NotTraceableError: The root's own forward depends on values of the data.
    """
    _refuse_odd_root(root, name)
    mode = root.training
    leaves: frozenset[type[nn.Module]] = frozenset()
    untraced: dict[type[nn.Module], str] = {}
    try:
        while True:
            try:
                trained = _trace(root.train(), leaves, name, inputs)
                evaluated = _trace(root.eval(), leaves, name, inputs)
            except _CannotTrace as answer:
                untraced[answer.kind] = answer.reason
                leaves |= {answer.kind}
                continue
            pair = _first_difference(trained, evaluated)
            while pair and _in_root(*pair) and follow_mode(root, *pair):
                pair = _first_difference(trained, evaluated)
            if pair is None:
                return Trace(trained, _output(trained).args[0], False, untraced)
            common = _common_caller(*(node.meta[CALLER] for node in pair))
            if common == "":
                found = _eval_output(trained, evaluated, name)
                return Trace(trained, found, True, untraced)
            leaves |= {type(root.get_submodule(common))}
    finally:
        root.train(mode)


def _trace(
    root: nn.Module, leaves: frozenset[type[nn.Module]], name: str, inputs: Inputs
) -> fx.Graph:
    before = {module: dict(vars(module)) for module in root.modules()}
    for constant in [name for name in vars(root) if name.startswith("_tensor_constant")]:
        delattr(root, constant)  # left by the trace before; a new name each time would differ
    answers: list[bool] = []
    try:
        while True:
            try:
                with watching(root):
                    graph = _Tracer(leaves, inputs, answers).trace(root)
                for node in graph.nodes:
                    node.meta[CONSTANT] = written_constant(root, node)
                return graph
            except _Asked as question:
                answers.append(answer(root, question.node, inputs))
    except _CannotTrace:
        raise
    except Lost as lost:
        raise NotTraceableError(
            model=name, reason=lost.reason, wanted=lost.wanted, advice=lost.advice
        ) from lost
    except Exception as cause:  # a forward raises whatever its own code happens to say
        raise NotTraceableError(model=name, reason=_first_line(cause)) from cause
    finally:
        for module, attributes in before.items():
            _restore(module, attributes)


def _restore(module: nn.Module, attributes: dict[str, Any]) -> None:
    """Undo what a forward wrote onto its module while it was traced: modes, and proxies (anchors)."""
    vars(module).update(attributes)
    for name in vars(module).keys() - attributes.keys():
        if any(isinstance(leaf, fx.Proxy) for leaf in pytree.tree_leaves(vars(module)[name])):
            delattr(module, name)


def _refuse_odd_root(root: nn.Module, name: str) -> None:
    """Refuse what the forward of the root's class does not say, and a graph would lose."""
    odd = "backward hooks" if _has_hooks(root) else ""
    odd = "forward hooks" if root._forward_hooks or root._forward_pre_hooks else odd
    if type(root).train is not nn.Module.train:
        odd = "a train() of its own, which freezing would overrule"
    if "forward" in vars(root):
        odd = "a forward of its own, beside its class'"
    if odd:
        raise NotTraceableError(
            model=name,
            reason=f"the module itself has {odd}",
            wanted="what it computes, said by its class alone",
            advice="remove the hooks or the attribute, or pass a module that calls this one",
        )


def _first_line(cause: Exception) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def _first_difference(left: fx.Graph, right: fx.Graph) -> tuple[fx.Node, fx.Node] | None:
    lefts, rights = list(left.nodes), list(right.nodes)
    for one, other in zip(lefts, rights, strict=False):
        if _signature(one) != _signature(other):
            return one, other
    return None if len(lefts) == len(rights) else (lefts[-1], rights[-1])


def _signature(node: fx.Node) -> tuple[Any, ...]:
    return node.op, str(node.target), str(node.args), str(node.kwargs), node.meta[CONSTANT]


def _in_root(one: fx.Node, other: fx.Node) -> bool:
    """Tell whether two calls are the root's own."""
    return not one.meta[CALLER] and not other.meta[CALLER]


def _common_caller(left: str, right: str) -> str:
    common: list[str] = []
    for one, other in zip(left.split("."), right.split("."), strict=False):
        if one != other:
            break
        common.append(one)
    return ".".join(common)


def _output(graph: fx.Graph) -> fx.Node:
    node: fx.Node = next(iter(reversed(graph.nodes)))
    return node


def _eval_output(trained: fx.Graph, evaluated: fx.Graph, name: str) -> fx.Node:
    """Find the value that eval mode returns in the train graph.

    The value must be computed alike in both, from the inputs on: auxiliary heads may differ, a
    dropout whose `training` is written into the root's own forward may not.
    """
    known: dict[str, int] = {}
    identities = _identities(evaluated, known)
    returned = _output(evaluated).args[0]
    if isinstance(returned, fx.Node):
        for node, identity in _identities(trained, known).items():
            if identity == identities[returned]:
                return node
    raise NotTraceableError(
        model=name,
        reason="its own forward computes one thing in train mode and another in eval mode",
        wanted="modules (nn.Dropout) in the place of functions that are told self.training",
        advice="put what depends on self.training into a module of its own",
    )


def _identities(graph: fx.Graph, known: dict[str, int]) -> dict[fx.Node, int]:
    """Number each node by what it computes: equal numbers, equal computation from the inputs on."""
    found: dict[fx.Node, int] = {}
    for node in graph.nodes:
        reads = fx.node.map_arg((node.args, node.kwargs), lambda n: f"%{found[n]}")
        text = f"{node.op} {node.target} {reads!r} {node.meta[CONSTANT]}"
        found[node] = known.setdefault(text, len(known))
    return found
