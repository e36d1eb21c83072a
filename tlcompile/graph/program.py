"""A graph as a function of the module tree: one tree, several programs over it.

GraphModules over a shared root copy references to parameters and prefix every key; a program owns
nothing. It is called with the tree, so deepcopy, `.to()` and load_state_dict are seen by all.
"""

from __future__ import annotations

import importlib
import linecache
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn

from tlcompile.graph.reach import ancestors
from tlcompile.graph.shapes import VALUES


@dataclass(frozen=True)
class Program:
    """Source text of one forward, with the functions that it names.

    Attributes:
        title: What it computes, for tracebacks ("whole", "prefix", "suffix").
        source: Python; defines `forward(self, ...)`.
        namespace: Global names that the source uses: functions of torch, never tensors.
        modules: Global names that stand for Python modules, which do not pickle themselves.
        inputs: Names of the arguments, in order.
        targets: Modules and tensors of the tree that it uses, in order, each once.
    """

    title: str
    source: str
    namespace: dict[str, Any] = field(repr=False)
    modules: dict[str, str] = field(repr=False)
    inputs: tuple[str, ...]
    targets: tuple[str, ...] = field(default=(), repr=False)

    def function(self) -> Callable[..., Any]:
        """Compile the source; tracebacks show its lines."""
        name = f"<tlcompile {self.title} {abs(hash(self.source)):x}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        modules = {name: importlib.import_module(path) for name, path in self.modules.items()}
        scope = {**self.namespace, **modules}
        exec(compile(self.source, name, "exec"), scope)
        function: Callable[..., Any] = scope["forward"]
        return function


def program_of(graph: fx.Graph, title: str, output: Any = None) -> Program:
    """Write a graph as a program.

    Args:
        graph: The graph; it is not changed.
        title: What it computes.
        output: Return this value instead of what the graph returns; vertices that it does not
            need are left out.
    """
    copied = fx.Graph()
    memo: dict[fx.Node, fx.Node] = {}
    returned = copied.graph_copy(graph, memo)
    if output is not None:
        returned = fx.node.map_arg(output, lambda node: memo[node])
    copied.output(returned)
    _erase_dead(copied, modules=output is not None)
    return _written(copied, title)


def program_alone(node: fx.Node) -> Program:
    """Write what computes one vertex, and nothing else, as a program.

    Its text depends on nothing but the vertex and what it reads: other vertices are not counted in
    the names of its values, and inputs that it does not need are none of its arguments.
    """
    alone = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    needed = ancestors([node])
    for index, one in enumerate(n for n in node.graph.nodes if n in needed):
        args, kwargs = fx.node.map_arg((one.args, one.kwargs), lambda n: known[n])
        name = None if one.op == "placeholder" else f"value{index}"
        known[one] = alone.create_node(one.op, one.target, args, kwargs, name, one.type)
    alone.output(known[node])
    return _written(alone, "boundary")


def _written(graph: fx.Graph, title: str) -> Program:
    code = graph.python_code("self")
    inputs = tuple(str(node.target) for node in graph.nodes if node.op == "placeholder")
    modules = {k: v.__name__ for k, v in code.globals.items() if isinstance(v, ModuleType)}
    namespace = {k: v for k, v in code.globals.items() if k not in modules}
    targets = dict.fromkeys(
        str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")
    )
    return Program(title, code.src, namespace, modules, inputs, tuple(targets))


def _erase_dead(graph: fx.Graph, *, modules: bool) -> None:
    """Leave out what nothing reads; inputs stay, and assertions about tensors that are computed.

    Args:
        graph: Of one program.
        modules: Modules that nothing reads, too. The base calls them: they may count, or draw.
    """
    nodes = list(graph.nodes)
    live = ancestors([nodes[-1]])
    for node in reversed(nodes):
        if node.users or node.op in ("output", "placeholder"):
            continue
        if node.op == "call_module" and not modules:
            live |= ancestors([node])
            continue
        if not is_assertion(node) or _tensors_behind(node) - live:
            graph.erase_node(node)


def _tensors_behind(assertion: fx.Node) -> set[fx.Node]:
    """Return the tensors whose sizes an assertion asks for."""
    values = {node: node.meta.get(VALUES, (None,))[0] for node in ancestors([assertion])}
    return {node for node, value in values.items() if isinstance(value, torch.Tensor)}


def is_assertion(node: fx.Node) -> bool:
    """Tell whether a node only checks something (torch._assert in ViT)."""
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "_assert"


def own_modules(root: nn.Module, target: str, targets: Collection[str]) -> Iterator[nn.Module]:
    """Yield a vertex' module and what is inside it, but for modules that are vertices themselves.

    A region that an earlier run added (conv, norm, activation) has its weights at `<region>.weight`:
    the norm is a child of the convolution, and a vertex of its own.

    Args:
        root: The module tree.
        target: The vertex' place in it.
        targets: The places of all vertices.
    """
    inner = tuple(t.removeprefix(f"{target}.") for t in targets if t.startswith(f"{target}."))
    for path, module in root.get_submodule(target).named_modules():
        if not any(path == name or path.startswith(f"{name}.") for name in inner):
            yield module


def owned(module: nn.Module, node: fx.Node) -> bool:
    """Tell whether a vertex has parameters of its own."""
    if node.op == "call_module":
        return any(True for _ in module.get_submodule(str(node.target)).parameters())
    return node.op == "get_attr" and str(node.target) in dict(module.named_parameters())
