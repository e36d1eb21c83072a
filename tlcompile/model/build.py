"""From an edited graph to a compiled model on meta: programs, what is frozen, what is new."""

from __future__ import annotations

from torch import nn

from tlcompile.graph.fold import find_folds
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.program import Program, own_modules, program_of
from tlcompile.graph.shapes import attribute_at
from tlcompile.graph.split import NotCacheable, Split
from tlcompile.model.compiled import (
    PREFIX,
    SUFFIX,
    SUFFIX_TRAIN,
    TRAIN,
    WHOLE,
    CompiledModel,
    Frozen,
    Parts,
)
from tlcompile.model.summary import Original, origins_of, summarise


def build_model(
    model_graph: ModelGraph, split: Split | NotCacheable | None, original: Original
) -> CompiledModel:
    """Build the model; its tensors are the graph's, on meta."""
    model_graph.notes += _notes(split)
    return CompiledModel(
        model_graph.module,
        _parts(model_graph, split),
        _frozen(model_graph),
        origins_of(model_graph, original),
        summarise(model_graph, original),
    )


def _notes(split: Split | NotCacheable | None) -> tuple[str, ...]:
    if isinstance(split, NotCacheable):
        return (split.reason,)
    return split.notes if split else ()


def _parts(model_graph: ModelGraph, split: Split | NotCacheable | None) -> Parts:
    graph, eval_output = model_graph.graph, model_graph.eval_output
    programs: dict[str, Program] = {WHOLE: program_of(graph, WHOLE, output=eval_output)}
    if eval_output is not None:
        programs[TRAIN] = program_of(graph, TRAIN)
    if not isinstance(split, Split):
        inputs = tuple(node for node in graph.nodes if node.op == "placeholder")
        programs[PREFIX] = program_of(graph, PREFIX, output=inputs)
        programs[SUFFIX] = programs[WHOLE]
        if TRAIN in programs:
            programs[SUFFIX_TRAIN] = programs[TRAIN]
        return Parts(programs, not_cacheable=split.reason if split else "")
    programs |= {PREFIX: split.prefix, SUFFIX: split.suffix}
    if split.suffix_train is not None:
        programs[SUFFIX_TRAIN] = split.suffix_train
    names = model_graph.names()
    folds = find_folds(model_graph, [names[one.vertex] for one in split.boundary])
    return Parts(programs, split.boundary, folds)


def _frozen(model_graph: ModelGraph) -> Frozen:
    names = model_graph.frozen | model_graph.frozen_alone
    root = model_graph.module
    held = [n for n in model_graph.vertices() if n.op in ("call_module", "get_attr")]
    targets = {
        str(n.target): attribute_at(root, str(n.target)) for n in held if name_of(n) in names
    }
    modules = {name for name, found in targets.items() if isinstance(found, nn.Module)}
    every_target = {str(n.target) for n in held if n.op == "call_module"}
    # By identity: one tensor may have two names.
    still = {id(found) for found in targets.values()}
    for module in (m for name in modules for m in own_modules(root, name, every_target)):
        still |= {
            id(tensor) for tensor in (*module._parameters.values(), *module._buffers.values())
        }
    awake = {t for t in every_target - modules if any(t.startswith(f"{m}.") for m in modules)}
    every = root.state_dict(keep_vars=True)
    tensors = frozenset(name for name, tensor in every.items() if id(tensor) in still)
    return Frozen(frozenset(modules), tensors, frozenset(awake))
