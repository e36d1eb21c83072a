"""Give layers of the base other widths; their readers follow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import fx

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.resize import ResizeMembersError
from tlcompile.graph.model_graph import EDITED, FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.operations import word_of
from tlcompile.graph.overlap import Overlap
from tlcompile.graph.program import owned
from tlcompile.graph.reach import ancestors, descendants
from tlcompile.graph.resize import Spread, run_with_widths, target_of
from tlcompile.graph.resize_lines import Agreement, Line
from tlcompile.graph.resized import Resized, ResizedParameter
from tlcompile.graph.shapes import VALUES, forget_shapes, record_shapes
from tlcompile.graph.surgery import set_module, set_parameter
from tlcompile.graph.width_run import WidthRun
from tlcompile.graph.widths import Role, channel_axis, role_of, widths_of
from tlcompile.passes.base import DOOMED, Pass
from tlcompile.recipe.flow import to_flow
from tlcompile.recipe.initialisers import Init
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.yaml_reader import read_recipe_text


@final
@dataclass(frozen=True, kw_only=True)
class ResizeVertex(Pass):
    """Resize layers, all lines of a recipe at once, and every reader that follows.

    Attributes:
        lines: (vertex, its line), in any order.
        seed: Of new weights, together with their layer's name.
        init: Of layers whose line does not say one.
        replaced: Vertices that `head: auto` replaces afterwards, whose initialiser is its own.

    Before: 1. Each line names a layer of the base that decides its width, and stays.
    After:  1. The named layers have the widths of their lines.
            2. Every resized layer reads the width that reaches it.
    """

    name: ClassVar[str] = "resize_vertex"

    lines: tuple[tuple[str, Line], ...]
    seed: int
    init: Init = "default"
    replaced: tuple[str, ...] = ()

    def apply(self, model_graph: ModelGraph) -> None:
        """Exchange the layers."""
        removed = {node for node in model_graph.vertices() if DOOMED in node.meta}
        lines = dict(self.lines)
        run, spread = run_with_widths(model_graph, lines, removed)
        if spread is not None:
            raise _members_error(run, spread)
        named = {str(target_of(model_graph, vertex).target): vertex for vertex in lines}
        self._refuse_useless_inputs(run, named)
        agreement = Agreement(run, lines, named, self.init)
        self._exchange(model_graph, run, agreement)
        agreement.refuse_unused()
        self._renew_shapes(run, removed)

    def _renew_shapes(self, run: WidthRun, removed: set[fx.Node]) -> None:
        """Record the shapes that changed; forget those behind what is not there yet."""
        targets = run.widths.keys() | run.parameters.keys()
        own = {n for n in run.model_graph.vertices() if str(n.target) in targets}
        changed = own | {n for n in run.after if run.changed(n)}
        waiting = {n for n in changed if n not in run.after}
        forget_shapes((changed | descendants(waiting)) - removed)
        record_shapes(run.model_graph, changed & run.after.keys())

    def _refuse_useless_inputs(self, run: WidthRun, named: dict[str, str]) -> None:
        """Refuse `in` where the layer reads that width anyway, unless its line says by which init."""
        for target, vertex in named.items():
            line = dict(self.lines)[vertex]
            if line.in_ is None:
                continue
            old = widths_of(run.model_graph.module.get_submodule(target))
            inferred = target in run.input_lines and (line.init is None or line.out is not None)
            if line.in_ == old.in_ or inferred:
                because = "it is inferred" if inferred else f"'{vertex}' reads {old.in_} already"
                raise NoEffectError(
                    line=f"resize.{vertex}.in: {line.in_}",
                    because=because,
                    instead="drop it, or write init beside it, without out",
                    key=("resize", vertex, "in"),
                )

    def _exchange(self, model_graph: ModelGraph, run: WidthRun, agreement: Agreement) -> None:
        """Put the resized layers and parameters into the module tree, on meta, with builders."""
        overlap = Overlap(run)
        done: set[str] = set()
        for node in model_graph.vertices():
            target = str(node.target)
            has_tensors = node.op in ("call_module", "get_attr")
            if not has_tensors or target not in run.widths.keys() | run.parameters.keys():
                continue
            line = agreement.lines_of(target)[0]
            keep = agreement.overlap(target)
            if owned(model_graph.module, node):
                node.meta[FRESH] = "resized"
            node.meta[EDITED] = ("resize", line)
            if target not in done:
                done.add(target)
                with self.blaming(line):
                    self._exchange_one(run, node, agreement, overlap if keep else None)

    def _exchange_one(
        self, run: WidthRun, node: fx.Node, agreement: Agreement, overlap: Overlap | None
    ) -> None:
        model_graph, target = run.model_graph, str(node.target)
        if target in run.parameters:
            axis, width = run.parameters[target]
            axis %= run.before[node].dim()
            entries = overlap.of(node) if overlap else None
            model_graph.builders[target] = ResizedParameter(axis, width, entries)
            set_parameter(model_graph.module, target, run.after[node])
            return
        old = model_graph.module.get_submodule(target)
        follows = role_of(old) is Role.FOLLOWS
        lost = follows or name_of(node) in self.replaced
        init: Init = "default" if lost else agreement.init(target)
        kept = overlap.of_layer(node, old, run.widths[target]) if overlap else None
        build = Resized(target, self.seed, run.widths[target], init, kept)
        set_module(model_graph.module, target, build.on_meta(old))
        model_graph.builders[target] = build

    @contextlib.contextmanager
    def blaming(self, vertex: str) -> Iterator[None]:
        """Let an error point at the line of a vertex."""
        try:
            yield
        except TLCompileError as error:
            error.key = error.key or ("resize", vertex)
            raise

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield lines whose layer has another width, and layers that read another width."""
        for vertex, line in self.lines:
            module = model_graph.module.get_submodule(str(target_of(model_graph, vertex).target))
            if line.out not in (None, widths_of(module).out):
                yield f"'{vertex}' is {line.out} wide"
        for node in model_graph.vertices():
            coming = any(DOOMED in before.meta for before in ancestors([node]))
            if node.op == "call_module" and node.meta.get(FRESH) == "resized" and not coming:
                read = node.all_input_nodes[0].meta[VALUES][0]
                module = model_graph.module.get_submodule(str(node.target))
                width = read.shape[channel_axis(module, read.dim())]
                if width != widths_of(module).in_:
                    yield f"'{name_of(node)}' reads the {width} channels that reach it"


_VERBS = {"add": "adds", "mul": "multiplies", "cat": "concatenates"}


def _members_error(run: WidthRun, spread: Spread) -> ResizeMembersError:
    clash = spread.clash
    operand, axis = clash.waiting[0]
    lines = {vertex: _as_data(line) for vertex, line in spread.lines.items()}
    return ResizeMembersError(
        name=name_of(clash.node),
        verb=_VERBS.get(word_of(clash.node), "combines"),
        changed=min(clash.lines),
        width=clash.width,
        other=name_of(operand),
        other_width=int(run.before[operand].shape[axis]),
        members=spread.members,
        line=f"resize: {to_flow(read_recipe_text(to_yaml(lines), ''))}",
        key=("resize", min(clash.lines)),
    )


def _as_data(line: Line) -> dict[str, Any]:
    """Return a line as the recipe writes it."""
    said = {"out": line.out, "in": line.in_, "init": line.init, "fan_out_init": line.fan_out_init}
    data = {key: value for key, value in said.items() if value is not None}
    data |= {"overlap": True} if line.overlap else {}
    return {
        k: v.model_dump(exclude_unset=True) if hasattr(v, "model_dump") else v
        for k, v in data.items()
    }
