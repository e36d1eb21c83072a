"""Add a layer or a vertex; its input widths come from the shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import fx, nn

from tlcompile.errors.edits import (
    DanglingError,
    NameTakenError,
    NoEffectError,
    ShapeError,
    WrongInputsError,
)
from tlcompile.errors.graph import InsideLeafError
from tlcompile.graph import functions
from tlcompile.graph.initialise import NewModule, torch_object
from tlcompile.graph.model_graph import EDITED, FRESH, ModelGraph
from tlcompile.graph.names import VERTEX, find_region, find_vertex, name_of
from tlcompile.graph.shapes import VALUES, kind_of, record_shapes, shape_of, show_shape
from tlcompile.graph.surgery import (
    check_name,
    check_place,
    insert_after,
    redirect,
    set_module,
    sort_vertices,
)
from tlcompile.passes.base import DOOMED, Pass
from tlcompile.passes.remove_vertex import crossing
from tlcompile.recipe.layers import Call, Layer, Parametric, Shape, activation_call


@final
@dataclass(frozen=True, kw_only=True)
class AddLayer(Pass):
    """Add one entry of `add`, in front of the readers that it feeds.

    A layer with norm, activation or dropout is a region: `<vertex>.<layer>`, `<vertex>.norm`,
    `<vertex>.activation`, `<vertex>.dropout`, in this order; its weights are `<vertex>.weight`.

    Attributes:
        vertex: Its name.
        layer: The layer type with its settings; the defaults of fine_tune are filled in.
        classes: Number of logits that the task needs, for `out: classes`.
        seed: Of its initial weights, together with its name.

    Before: 1. What it reads is in the graph and stays.
    After:  1. Every new vertex has a shape.
            2. Readers of a replaced vertex of this name read the new one.
    """

    name: ClassVar[str] = "add_layer"

    vertex: str
    layer: Layer
    classes: int
    seed: int

    def apply(self, model_graph: ModelGraph) -> None:
        """Insert the layer and what follows it."""
        check_name(self.vertex)
        check_place(model_graph.module, self.vertex)
        self._refuse_inside_leaf(model_graph)
        replaced = self._release_name(model_graph)
        sources = self._sources(model_graph, replaced)
        last = self._insert(model_graph, sources)
        inside = set(replaced)
        for old in replaced:
            redirect([r for r in old.users if r not in inside], old, last)
        for old in reversed(replaced):
            model_graph.graph.erase_node(old)  # its module may be gone already
        self._feed(model_graph, sources, last)
        sort_vertices(model_graph)

    def _refuse_inside_leaf(self, model_graph: ModelGraph) -> None:
        for node in model_graph.vertices():
            inside = node.op == "call_module" and self.vertex.startswith(f"{node.target}.")
            if inside and DOOMED not in node.meta:
                raise InsideLeafError(
                    model=model_graph.model,
                    name=self.vertex,
                    leaf=name_of(node),
                    kind=kind_of(model_graph.module, node),
                )

    def _release_name(self, model_graph: ModelGraph) -> list[fx.Node]:
        """Return the removed region of this name, renamed; refuse a name that stays."""
        same = [
            node
            for name, node in model_graph.names().items()
            if name == self.vertex or name.startswith(f"{self.vertex}.")
        ]
        if any(DOOMED not in node.meta for node in same):
            raise NameTakenError(name=self.vertex)
        for node in same:
            node.meta[VERTEX] = f"{name_of(node)} (removed)"
        return same

    def _sources(self, model_graph: ModelGraph, replaced: list[fx.Node]) -> list[fx.Node]:
        if not self.layer.inputs:
            sources = crossing(replaced)[0] if replaced else []
        else:
            sources = [
                self._source(model_graph, name, index)
                for index, name in enumerate(self.layer.inputs)
            ]
        least, most = self.layer.num_inputs
        if not least <= len(sources) <= most:
            raise WrongInputsError(
                name=self.vertex,
                kind=self.layer.layer,  # type: ignore[attr-defined]
                found=tuple(map(name_of, sources)),
                wanted=f"{least} input" if least == most else f"{least} inputs or more",
            )
        return sources

    def _source(self, model_graph: ModelGraph, name: str, index: int) -> fx.Node:
        with self.reading("inputs", index):
            source = find_vertex(model_graph.graph, model_graph.module, model_graph.model, name)
            if DOOMED in source.meta:
                raise DanglingError(removed=name_of(source), readers=(self.vertex,))
        return source

    def _insert(self, model_graph: ModelGraph, sources: list[fx.Node]) -> fx.Node:
        layer = self.layer
        record_shapes(model_graph, sources)
        shapes = self._shapes(sources)
        call = layer.call(shapes, self.classes)
        kind = str(layer.layer)  # type: ignore[attr-defined]
        if not isinstance(layer, Parametric):
            return self._part(model_graph, self.vertex, self.vertex, call, sources)
        follow = bool(layer.norm or layer.activation or layer.dropout)
        vertex = f"{self.vertex}.{kind}" if follow else self.vertex
        last = self._part(model_graph, self.vertex, vertex, call, sources, layer.init or "default")
        for part, following in self._followers(layer, last):
            target = f"{self.vertex}.{part}"
            last = self._part(model_graph, target, target, following, [last])
        return last

    def _followers(self, layer: Parametric, main: fx.Node) -> Iterator[tuple[str, Call]]:
        shape = shape_of(main)
        assert shape is not None
        if layer.norm == "batch":
            kind = "nn.BatchNorm2d" if len(shape) == 3 else "nn.BatchNorm1d"
            yield "norm", Call(kind, {"num_features": shape[0]})
        elif layer.norm == "layer":
            yield "norm", Call("nn.LayerNorm", {"normalized_shape": shape})
        if layer.activation:
            yield "activation", activation_call(layer.activation)
        if layer.dropout:
            yield "dropout", Call("nn.Dropout", {"p": layer.dropout})

    def _shapes(self, sources: list[fx.Node]) -> list[Shape]:
        shapes = [shape_of(source) for source in sources]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes) or not self.layer.accepts(known):
            raise ShapeError(
                name=self.vertex,
                kind=str(self.layer.layer),  # type: ignore[attr-defined]
                found=tuple(f"{name_of(s)}: {show_shape(s)}" for s in sources),
                wanted=self.layer.wants,
                advice="put a global_pool or flatten before it, or read another vertex",
            )
        return known

    def _part(
        self,
        model_graph: ModelGraph,
        target: str,
        vertex: str,
        call: Call,
        sources: list[fx.Node],
        init: str = "default",
    ) -> fx.Node:
        """Insert one vertex, on meta; a module remembers how to build itself for real."""
        args = (list(sources),) if call.as_list else tuple(sources)
        module = call.name.startswith("nn.") and not call.name.startswith("nn.functional.")
        if module:
            made = self._made(call, sources)
            set_module(model_graph.module, target, made)
            build = NewModule(call.name, call.kwargs, target, self.seed, init)
            model_graph.builders[target] = build
            node = insert_after(model_graph, sources, vertex, "call_module", target, args)
        else:
            function = (
                getattr(functions, call.name[4:])
                if call.name.startswith("own.")
                else torch_object(call.name)
            )
            call_args = (function, args, call.kwargs)
            node = insert_after(model_graph, sources, vertex, "call_function", *call_args)
        node.meta[FRESH] = "added"
        node.meta[EDITED] = self.key
        record_shapes(model_graph, [node])
        return node

    def _made(self, call: Call, sources: list[fx.Node]) -> nn.Module:
        """Build the module on meta; torch itself refuses settings that contradict each other."""
        try:
            with torch.device("meta"):
                made: nn.Module = torch_object(call.name)(**call.kwargs)
        except (ValueError, RuntimeError, AssertionError) as cause:
            raise ShapeError(
                name=self.vertex,
                kind=str(self.layer.layer),  # type: ignore[attr-defined]
                found=tuple(f"{name_of(s)}: {show_shape(s)}" for s in sources),
                wanted=str(cause).splitlines()[0],
                advice=f"change the settings of add.{self.vertex}",
            ) from cause
        return made

    def _feed(self, model_graph: ModelGraph, sources: list[fx.Node], last: fx.Node) -> None:
        for index, name in enumerate(self.layer.feeds):
            with self.reading("feeds", index):
                self._feed_one(model_graph, sources, last, name)

    def _feed_one(
        self, model_graph: ModelGraph, sources: list[fx.Node], last: fx.Node, name: str
    ) -> None:
        region = find_region(model_graph.graph, model_graph.module, model_graph.model, name)
        read = [
            (reader, source)
            for source in sources
            for reader in region
            if source in reader.all_input_nodes
        ]
        if not read:
            raise NoEffectError(
                line=f"feeds: {name}",
                because=f"'{name}' reads nothing that '{self.vertex}' reads",
                instead=f"write feeds: {_readers(sources, last)}",
            )
        for reader, source in read:
            redirect([reader], source, last)

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield new vertices without a shape."""
        for node in model_graph.vertices():
            if node.meta.get(FRESH) == "added" and VALUES not in node.meta:
                yield f"'{name_of(node)}' has a shape"


def _readers(sources: list[fx.Node], last: fx.Node) -> str:
    """Name a vertex that could be fed: a kept reader of what the new layer reads."""
    readers = [r for source in sources for r in source.users if r is not last and r.op != "output"]
    return name_of(readers[0]) if readers else "[]"
