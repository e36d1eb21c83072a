"""Add a layer or a vertex; its input widths come from the shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

from torch import fx, nn

from tlcompile.errors.edits import (
    CycleError,
    DanglingError,
    NameTakenError,
    NoEffectError,
    ShapeError,
    WrongInputsError,
)
from tlcompile.errors.graph import InsideLeafError
from tlcompile.graph.initialise import NewModule, torch_object
from tlcompile.graph.model_graph import EDITED, FED, FRESH, ModelGraph
from tlcompile.graph.names import VERTEX, find_region, find_vertex, name_of
from tlcompile.graph.shapes import (
    VALUES,
    kind_of,
    record_shapes,
    shape_of,
    show_shape,
    tensors_in,
)
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
from tlcompile.recipe.initialisers import Init
from tlcompile.recipe.layers.activation import activation_call
from tlcompile.recipe.layers.base import Call, Layer, Parametric, Shape

REMOVED = " (removed)"  # behind the name of a vertex whose name an added one takes


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
        self._refuse_shared_weights(model_graph)
        sources = self._sources(model_graph, replaced)
        last = self._insert(model_graph, sources)
        inside = set(replaced)
        for old in replaced:
            redirect([r for r in old.users if r not in inside], old, last)
        for old in reversed(replaced):
            model_graph.graph.erase_node(old)  # its module may be gone already
        self._feed(model_graph, sources, last)
        try:
            sort_vertices(model_graph)
        except CycleError as error:
            error.feeder = self.vertex
            raise

    def _refuse_inside_leaf(self, model_graph: ModelGraph) -> None:
        for node in model_graph.vertices():
            inside = node.op == "call_module" and self.vertex.startswith(f"{node.target}.")
            if inside and _is_added(node):
                raise NameTakenError(name=self.vertex, added=str(node.target))
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
        if kept := [node for node in same if DOOMED not in node.meta]:
            added = name_of(kept[0]) if _is_added(kept[0]) else ""
            raise NameTakenError(name=self.vertex, added=added)
        for node in same:
            node.meta[VERTEX] = name_of(node) + REMOVED
        return same

    def _refuse_shared_weights(self, model_graph: ModelGraph) -> None:
        """Refuse a name whose weights a vertex that stays uses, too: a module that is called twice."""
        for node in model_graph.vertices():
            target = str(node.target) if node.op in ("call_module", "get_attr") else ""
            if f"{target}.".startswith(f"{self.vertex}.") and DOOMED not in node.meta:
                raise NameTakenError(name=self.vertex, user=name_of(node))

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
                kind=self._kind,
                found=tuple(map(name_of, sources)),
                wanted=f"{least} input" if least == most else f"{least} inputs or more",
            )
        return sources

    def _source(self, model_graph: ModelGraph, name: str, index: int) -> fx.Node:
        with self.reading("inputs", index):
            source = find_vertex(model_graph.graph, model_graph.module, model_graph.model, name)
            if DOOMED in source.meta:
                removed = name_of(source).removesuffix(REMOVED)
                raise DanglingError(removed=removed, readers=(self.vertex,), reader_is_added=True)
        return source

    def _insert(self, model_graph: ModelGraph, sources: list[fx.Node]) -> fx.Node:
        layer = self.layer
        record_shapes(model_graph, sources)
        call = layer.call(self._shapes(sources), self.classes)
        if not isinstance(layer, Parametric):
            return self._part(model_graph, self.vertex, self.vertex, call, sources)
        follow = bool(layer.norm or layer.activation or layer.dropout)
        vertex = f"{self.vertex}.{self._kind}" if follow else self.vertex
        bias_init = getattr(layer, "bias_init", None)
        init = layer.init or "default"
        last = self._part(model_graph, self.vertex, vertex, call, sources, init, bias_init)
        for part, following in self._followers(layer, last):
            target = f"{self.vertex}.{part}"
            check_place(model_graph.module, target)
            last = self._part(model_graph, target, target, following, [last])
        return last

    @property
    def _kind(self) -> str:
        return str(self.layer.layer)  # type: ignore[attr-defined]

    def _followers(self, layer: Parametric, main: fx.Node) -> Iterator[tuple[str, Call]]:
        shape = shape_of(main)
        assert shape is not None
        if layer.norm:
            yield "norm", self._norm(layer, main, shape)
        if layer.activation:
            yield "activation", activation_call(layer.activation, 1 if layer.channels_first else -1)
        if layer.dropout:
            yield "dropout", Call("nn.Dropout", {"p": layer.dropout})

    def _norm(self, layer: Parametric, main: fx.Node, shape: Shape) -> Call:
        """Return the norm over channels or features, which stand first or last."""
        if layer.norm == "layer":
            first = layer.channels_first
            kind = "own_modules.ChannelsFirstLayerNorm" if first else "nn.LayerNorm"
            return Call(kind, {"normalized_shape": shape[0] if first else shape[-1]})
        if not layer.channels_first and len(shape) > 1:
            raise ShapeError(
                name=self.vertex,
                kind=f"{self._kind}, norm: batch",
                found=(f"{name_of(main)}: {show_shape(main)}",),
                wanted="(N, features): batch normalisation would take the length for the channels",
                advice=f"write add: {{{self.vertex}: {{norm: layer}}}}",
                key=(*self.key, "norm"),
            )
        return Call(f"nn.BatchNorm{max(1, len(shape) - 1)}d", {"num_features": shape[0]})

    def _shapes(self, sources: list[fx.Node]) -> list[Shape]:
        shapes = [shape_of(source) for source in sources]
        known = [shape for shape in shapes if shape is not None]
        fits = len(known) == len(shapes) and self.layer.accepts(known)
        if fits and self.layer.reads_integers:
            fits = not any(source.meta[VALUES][0].is_floating_point() for source in sources)
        if not fits:
            raise self._misfit(sources, self.layer.wants, self.layer.advice)
        return known

    def _misfit(self, sources: list[fx.Node], wanted: str, advice: str) -> ShapeError:
        found = tuple(f"{name_of(source)}: {show_shape(source)}" for source in sources)
        return ShapeError(
            name=self.vertex, kind=self._kind, found=found, wanted=wanted, advice=advice
        )

    def _part(
        self,
        model_graph: ModelGraph,
        target: str,
        vertex: str,
        call: Call,
        sources: list[fx.Node],
        init: Init = "default",
        bias_init: float | None = None,
    ) -> fx.Node:
        """Insert one vertex, on meta; a module remembers how to build itself for real."""
        args = (list(sources),) if call.as_list else tuple(sources)
        called = call.factory or torch_object(call.name)
        if call.factory or isinstance(called, type):
            build = NewModule(
                call.name, call.kwargs, target, self.seed, init, bias_init, call.factory
            )
            set_module(model_graph.module, target, self._made(build, sources))
            model_graph.builders[target] = build
            node = insert_after(model_graph, sources, vertex, "call_module", target, args)
        else:
            call_args = (called, args, call.kwargs)
            node = insert_after(model_graph, sources, vertex, "call_function", *call_args)
        node.meta[FRESH] = "added"
        node.meta[EDITED] = self.key
        record_shapes(model_graph, [node])
        return node

    def _made(self, build: NewModule, sources: list[fx.Node]) -> nn.Module:
        """Build the module on meta; torch itself refuses settings that contradict each other."""
        with self.reading("init"):
            try:
                return build.on_meta()
            except (ValueError, RuntimeError, AssertionError) as cause:
                advice = f"change the settings of add.{self.vertex}"
                reason = str(cause).splitlines()[0] if str(cause) else "other settings"
                misfit = self._misfit(sources, reason, advice)
                misfit.key = self.key
                raise misfit from cause

    def _feed(self, model_graph: ModelGraph, sources: list[fx.Node], last: fx.Node) -> None:
        for index, name in enumerate(self.layer.feeds):
            with self.reading("feeds", index):
                self._feed_one(model_graph, sources, last, name)

    def _feed_one(
        self, model_graph: ModelGraph, sources: list[fx.Node], last: fx.Node, name: str
    ) -> None:
        region = find_region(model_graph.graph, model_graph.module, model_graph.model, name)
        record_shapes(model_graph, sources)
        kept = [node for node in region if not (DOOMED in node.meta or _is_added(node))]
        read = [
            (reader, source)
            for source in sources
            for reader in kept
            if source in reader.all_input_nodes and _is_tensor(reader)
        ]
        if not read:
            raise NoEffectError(
                line=f"feeds: {name}",
                because=self._why_not(name, region, kept),
                instead=_feedable(sources),
            )
        for reader, source in read:
            redirect([reader], source, last)
            reader.meta.setdefault(FED, {})[source] = last
        for reader in kept:
            self._refuse_two_feeders(reader, sources, last)

    def _why_not(self, name: str, region: list[fx.Node], kept: list[fx.Node]) -> str:
        if not kept:
            word = "removed" if DOOMED in region[-1].meta else "added"
            return f"'{name}' is {word} by this recipe; only a vertex that stays can be fed"
        return f"'{name}' reads no tensor that '{self.vertex}' reads"

    def _refuse_two_feeders(self, reader: fx.Node, sources: list[fx.Node], last: fx.Node) -> None:
        """Refuse to stand in for what another added layer already does: the order would decide."""
        for source in sources:
            other = reader.meta.get(FED, {}).get(source, last)
            if other is not last and other not in sources:
                raise NoEffectError(
                    line=f"feeds: {name_of(reader)}",
                    because=f"it reads '{name_of(other)}' in the place of '{name_of(source)}' already",
                    instead=f"let '{self.vertex}' read '{name_of(other)}', or feed one of the two",
                )

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:
        """Yield its own new vertices without a shape; those of other passes may wait for theirs."""
        for name, node in model_graph.names().items():
            own = name == self.vertex or name.startswith(f"{self.vertex}.")
            if own and node.meta.get(FRESH) == "added" and VALUES not in node.meta:
                yield f"'{name_of(node)}' has a shape"


def _is_added(node: fx.Node) -> bool:
    return node.meta.get(FRESH) == "added"


def _is_tensor(node: fx.Node) -> bool:
    """Tell whether a vertex takes more of its input than a size, which no layer changes."""
    return VALUES not in node.meta or bool(tensors_in(node.meta[VALUES][0]))


def _feedable(sources: list[fx.Node]) -> str:
    """Advise a kept reader of what the new layer reads, where there is one."""
    for reader in (reader for source in sources for reader in source.users):
        if not (reader.op == "output" or DOOMED in reader.meta or _is_added(reader)):
            return f"write feeds: {name_of(reader)}"
    return "name it under the inputs of another added layer, or under outputs"
