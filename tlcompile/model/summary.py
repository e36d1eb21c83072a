"""What the compiler did, as rows: vertex by vertex, tensor by tensor, against the base."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from tlcompile.graph.flops import flops_of
from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.shapes import kind_of, show_shape
from tlcompile.graph.stages import find_stages
from tlcompile.model.compiled import Summary, TensorRow, VertexRow


@dataclass(frozen=True)
class Original:
    """The base before any edit, to compare with.

    Attributes:
        source: Whose values its tensors have: the weights' name, a file, `given`, `none`.
        vertices: Its rows, in the order of computation.
        tensors: Of its state dict: (shape, kind).
        stages: The last vertex of each stage, where they are wanted.
    """

    source: str
    vertices: tuple[VertexRow, ...]
    tensors: dict[str, tuple[tuple[int, ...], str]]
    stages: dict[str, str]


def survey(model_graph: ModelGraph, source: str, *, with_stages: bool) -> Original:
    """Write down what a base is, before the passes edit it."""
    module = model_graph.module
    parameters = dict(module.named_parameters(remove_duplicate=False))
    tensors = {
        name: (tuple(tensor.shape), "parameter" if name in parameters else "buffer")
        for name, tensor in module.state_dict().items()
    }
    found = find_stages(model_graph) if with_stages else {}
    stages = {stage: name_of(node) for stage, node in found.items()}
    return Original(source, vertex_rows(model_graph), tensors, stages)


def summarise(model_graph: ModelGraph, original: Original) -> Summary:
    """Write down what a graph is, and what it was."""
    before = {row.name: row for row in original.vertices}
    vertices = tuple(_compared(row, before.get(row.name)) for row in counted(model_graph))
    left = {row.name for row in vertices}
    why = model_graph.dropped
    return Summary(
        model=model_graph.model,
        vertices=vertices,
        outputs=tuple(map(name_of, model_graph.output().all_input_nodes)),
        removed=tuple(
            replace(row, origin=why.get(row.name, "nothing reads it any more"))
            for row in original.vertices
            if row.name not in left
        ),
        notes=tuple(model_graph.notes),
        sample_shapes=dict(model_graph.sample_shapes),
        dtypes=dict(model_graph.dtypes),
        source=original.source,
        inits=_inits(model_graph),
        old_shapes=_old_shapes(model_graph, original),
        dropped_tensors=_dropped_tensors(model_graph, original),
        stages=_stages(original, left),
    )


def _stages(original: Original, left: Collection[str]) -> dict[str, str]:
    """Return the last vertex of each stage that is left of it, or of those before it."""
    names = [row.name for row in original.vertices]
    ends = {
        stage: [name for name in names[: names.index(end) + 1] if name in left]
        for stage, end in original.stages.items()
    }
    return {stage: kept[-1] for stage, kept in ends.items() if kept}


def counted(model_graph: ModelGraph) -> tuple[VertexRow, ...]:
    """Return a row for each vertex, with its FLOPs and bytes."""
    work = flops_of(model_graph)
    return tuple(
        replace(row, flops=work[row.name][0], num_bytes=work[row.name][1])
        for row in vertex_rows(model_graph)
    )


def vertex_rows(model_graph: ModelGraph) -> tuple[VertexRow, ...]:
    """Return a row for each vertex, without what takes counting."""
    frozen = model_graph.frozen | model_graph.frozen_alone
    numel = _num_parameters(model_graph)
    inits = {target: build.init for target, build in model_graph.builders.items()}
    return tuple(
        VertexRow(
            name=name_of(node),
            kind=kind_of(model_graph.module, node),
            shape=show_shape(node),
            reads=tuple(map(name_of, node.all_input_nodes)),
            num_parameters=(
                owned := numel.get(str(node.target), 0) if _has_weights(node.op) else 0
            ),
            origin=str(node.meta.get(FRESH, "kept")),
            frozen=name_of(node) in frozen,
            init=inits.get(str(node.target), "") if owned else "",
        )
        for node in model_graph.vertices()
    )


def origins_of(model_graph: ModelGraph, original: Original) -> dict[str, str]:
    """Return why a tensor is new, by name; kept ones are left out."""
    before = {row.name for row in original.vertices}
    fresh = {
        str(node.target): _origin(
            str(node.meta[FRESH]), bool({name_of(node), str(node.target)} & before)
        )
        for node in model_graph.vertices()
        if FRESH in node.meta
    }
    owners = {
        name: name if name in fresh else _owner(name, fresh.keys())
        for name in model_graph.module.state_dict()
    }
    return {name: fresh[owner] for name, owner in owners.items() if owner is not None}


def _origin(fresh: str, was_there: bool) -> str:
    """Name why something is new; what is added under a name of the base replaces it."""
    return "replaced" if fresh == "added" and was_there else fresh


def _compared(row: VertexRow, before: VertexRow | None) -> VertexRow:
    if before is None:
        return row
    was = before.shape if before.shape != row.shape else ""
    return replace(row, was=was, origin=_origin(row.origin, was_there=True))


def _num_parameters(model_graph: ModelGraph) -> dict[str, int]:
    """Return the number of parameters of each vertex that has some, by its target."""
    named = model_graph.module.named_parameters(remove_duplicate=False)
    targets = {str(n.target) for n in model_graph.vertices() if n.op == "call_module"}
    numel: dict[str, int] = {}
    for name, parameter in named:
        owner = _owner(name, targets) or name
        numel[owner] = numel.get(owner, 0) + parameter.numel()
    return numel


def _inits(model_graph: ModelGraph) -> dict[str, str]:
    builders = model_graph.builders
    owners = {
        name: name if name in builders else _owner(name, builders.keys())
        for name in model_graph.module.state_dict()
    }
    return {name: builders[owner].init for name, owner in owners.items() if owner is not None}


def _old_shapes(model_graph: ModelGraph, original: Original) -> dict[str, tuple[int, ...]]:
    before = {name: shape for name, (shape, _) in original.tensors.items()}
    after = model_graph.module.state_dict()
    return {
        name: before[name]
        for name, tensor in after.items()
        if name in before and before[name] != tuple(tensor.shape)
    }


def _dropped_tensors(model_graph: ModelGraph, original: Original) -> tuple[TensorRow, ...]:
    left = model_graph.module.state_dict().keys()
    own = "random" if original.source == "none" else "loaded"
    source = "" if own == "random" else original.source
    return tuple(
        TensorRow(name, shape, own, "dropped", kind, source=source)
        for name, (shape, kind) in original.tensors.items()
        if name not in left
    )


def _owner(tensor: str, modules: Collection[str]) -> str | None:
    """Return the module among `modules` that a tensor belongs to, by its name."""
    parts = tensor.split(".")
    paths = (".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
    return next((path for path in paths if path in modules), None)


def _has_weights(op: str) -> bool:
    return op in ("call_module", "get_attr")


def vertices_behind(ends: Iterable[str], rows: Sequence[VertexRow]) -> list[VertexRow]:
    """Return these vertices and all that they read, in the order of computation."""
    by_name = {row.name: row for row in rows}
    found: set[str] = set()
    waiting = list(ends)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += by_name[name].reads
    return [row for row in rows if row.name in found]
