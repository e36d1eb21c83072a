"""From an edited graph to a compiled model on meta: programs, what is frozen, what is new."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from tlcompile.graph.model_graph import FRESH, ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.program import Program, program_of
from tlcompile.graph.shapes import attribute_at, kind_of, show_shape
from tlcompile.graph.split import Split
from tlcompile.model.compiled import (
    PREFIX,
    SUFFIX,
    SUFFIX_TRAIN,
    TRAIN,
    WHOLE,
    CompiledModel,
    Frozen,
    Parts,
    Summary,
    VertexRow,
)


def build_model(model_graph: ModelGraph, split: Split | None) -> CompiledModel:
    """Build the model; its tensors are the graph's, on meta."""
    return CompiledModel(
        model_graph.module,
        _parts(model_graph, split),
        _frozen(model_graph),
        _origins(model_graph),
        summarise(model_graph),
    )


def _parts(model_graph: ModelGraph, split: Split | None) -> Parts:
    graph, eval_output = model_graph.graph, model_graph.eval_output
    programs: dict[str, Program] = {WHOLE: program_of(graph, WHOLE, output=eval_output)}
    if eval_output is not None:
        programs[TRAIN] = program_of(graph, TRAIN)
    if split is None:
        return Parts(programs)
    programs |= {PREFIX: split.prefix, SUFFIX: split.suffix}
    if split.suffix_train is not None:
        programs[SUFFIX_TRAIN] = split.suffix_train
    return Parts(programs, split.boundary)


def _frozen(model_graph: ModelGraph) -> Frozen:
    names = model_graph.frozen | model_graph.frozen_alone
    root = model_graph.module
    held = [n for n in model_graph.vertices() if n.op in ("call_module", "get_attr")]
    targets = {
        str(n.target): attribute_at(root, str(n.target)) for n in held if name_of(n) in names
    }
    modules = {name: found for name, found in targets.items() if isinstance(found, nn.Module)}
    # By identity: one tensor may have two names.
    still = {id(found) for found in targets.values()}
    for module in modules.values():
        still |= {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    every = root.state_dict(keep_vars=True)
    tensors = frozenset(name for name, tensor in every.items() if id(tensor) in still)
    return Frozen(frozenset(modules), tensors)


def _origins(model_graph: ModelGraph) -> dict[str, str]:
    fresh = {str(n.target): n.meta[FRESH] for n in model_graph.vertices() if FRESH in n.meta}
    owners = {name: _owner(name, fresh.keys()) for name in model_graph.module.state_dict()}
    return {name: fresh[owner] for name, owner in owners.items() if owner is not None}


def _owner(tensor: str, modules: Collection[str]) -> str | None:
    """Return the module among `modules` that a tensor belongs to, by its name."""
    parts = tensor.split(".")
    paths = (".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
    return next((path for path in paths if path in modules), None)


def summarise(model_graph: ModelGraph) -> Summary:
    """Write down what the graph is, for tables."""
    module = model_graph.module
    names = model_graph.frozen | model_graph.frozen_alone
    sizes = {name: p.numel() for name, p in module.named_parameters(remove_duplicate=False)}
    targets = {str(n.target) for n in model_graph.vertices() if n.op == "call_module"}
    numel: dict[str, int] = {}
    for name, size in sizes.items():
        owner = _owner(name, targets) or name
        numel[owner] = numel.get(owner, 0) + size
    rows = tuple(
        VertexRow(
            name=name_of(node),
            kind=kind_of(module, node),
            shape=show_shape(node),
            reads=tuple(map(name_of, node.all_input_nodes)),
            num_parameters=numel.get(str(node.target), 0) if _has_weights(node.op) else 0,
            origin=str(node.meta.get(FRESH, "kept")),
            frozen=name_of(node) in names,
        )
        for node in model_graph.vertices()
    )
    return Summary(
        model=model_graph.model,
        vertices=rows,
        outputs=tuple(map(name_of, model_graph.output().all_input_nodes)),
        dropped=dict(model_graph.dropped),
        notes=tuple(model_graph.notes),
        sample_shapes=dict(model_graph.sample_shapes),
    )


def _has_weights(op: str) -> bool:
    return op in ("call_module", "get_attr")
