"""From a recipe to passes, in one fixed order whatever the order in the file.

freeze marks (names of the base) -> remove -> head -> add (inputs first) -> outputs -> dead -> check.
Reading this file and compiler.py is understanding the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlcompile.errors.base import TLCompileError, raise_problems
from tlcompile.errors.edits import (
    CycleError,
    FrozenEditError,
    NoEffectError,
    NotReplacedError,
    OutputActivationError,
)
from tlcompile.errors.graph import GraphError, NotYetError
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_region, name_of
from tlcompile.passes.add_layer import AddLayer
from tlcompile.passes.base import Pass
from tlcompile.passes.check_frozen import CheckFrozen
from tlcompile.passes.drop_dead_vertices import DropDeadVertices
from tlcompile.passes.freeze_only import FreezeOnly
from tlcompile.passes.freeze_upto import FreezeUpto, freeze_ends
from tlcompile.passes.remove_vertex import RemoveVertex
from tlcompile.passes.replace_head import ReplaceHead
from tlcompile.passes.set_outputs import SetOutputs
from tlcompile.recipe.layers import Layer, Parametric
from tlcompile.recipe.schema import FreezePoint, Recipe, StagePoint, VertexPoint

LOGIT_TASKS = ("classification", "binary", "multilabel")


def passes_for(recipe: Recipe, base: ModelGraph, num_classes: int) -> tuple[Pass, ...]:
    """Return the passes of a recipe, after looking every name up in the base.

    Args:
        recipe: What the user asked for.
        base: The base model's graph; it is read, not changed.
        num_classes: Classes of the data, or a placeholder.

    Raises:
        Problems: Names that the base does not have, and other misfits, all at once.
    """
    raise_problems(e.at(recipe.where(e.key)) for e in misfits(recipe, base))
    logits = num_logits(recipe, num_classes)
    seed = recipe.fine_tune.seed
    points = tuple(map(as_point, recipe.freeze.upto))
    passes: list[Pass] = [FreezeUpto(points=points, key=("freeze", "upto"))]
    passes += [
        FreezeOnly(vertex=v, key=("freeze", "only", i)) for i, v in enumerate(recipe.freeze.only)
    ]
    passes += [
        RemoveVertex(vertex=vertex, how=how, key=("remove", vertex))
        for vertex, how in recipe.remove.items()
    ]
    if head_of(recipe, base) == "auto":
        init = recipe.fine_tune.init
        passes.append(ReplaceHead(classes=logits, seed=seed, init=init, key=("head",)))
    passes += [
        AddLayer(vertex=v, layer=layer, classes=logits, seed=seed, key=("add", v))
        for v, layer in in_order(recipe)
    ]
    if recipe.outputs or len(passes) > 1:
        passes.append(SetOutputs(vertices=recipe.outputs or (), key=("outputs",)))
        passes.append(DropDeadVertices(key=("outputs",)))
    words = tuple(":".join(p) if isinstance(p, tuple) else p for p in points)
    passes.append(CheckFrozen(points=words, key=("freeze", "upto")))
    return tuple(passes)


def num_logits(recipe: Recipe, num_classes: int) -> int:
    """Return how many numbers the model returns for an image: `out: classes`."""
    return 1 if recipe.task == "binary" else num_classes


def head_of(recipe: Recipe, base: ModelGraph) -> str:
    """Return `auto` or `keep`: keep where the recipe itself edits the classifier or the outputs."""
    if recipe.head is not None:
        return recipe.head
    head = find_head(base)
    if recipe.base.run is not None or recipe.outputs is not None or head is None:
        return "keep"
    edited = {
        name_of(node)
        for vertex in (*recipe.remove, *recipe.resize)
        for node in find_region(base.graph, base.module, base.model, vertex)
    }
    return "keep" if name_of(head.classifier) in edited else "auto"


def as_point(point: FreezePoint) -> str | tuple[str, str]:
    """Return a freeze point as plain text, or as a pair that says which kind it is."""
    match point:
        case VertexPoint():
            return "vertex", point.vertex
        case StagePoint():
            return "stage", str(point.stage)
    return str(point)


def in_order(recipe: Recipe) -> list[tuple[str, Layer]]:
    """Return the added layers, each behind those that it reads, with fine_tune's defaults.

    Raises:
        CycleError: They read each other in a circle.
    """
    waiting = dict(recipe.add)
    done: list[tuple[str, Layer]] = []
    while waiting:
        ready = [v for v, layer in waiting.items() if not _reads(layer, waiting, besides=v)]
        if not ready:
            raise CycleError(names=(*waiting, next(iter(waiting))), key=("add",))
        done.append((ready[0], _with_defaults(recipe, ready[0], waiting.pop(ready[0]))))
    return done


def _reads(layer: Layer, names: dict[str, Layer], besides: str) -> bool:
    own = [n for n in names if n != besides or besides in layer.inputs]
    return any(read == name or read.startswith(f"{name}.") for read in layer.inputs for name in own)


def _with_defaults(recipe: Recipe, vertex: str, layer: Layer) -> Layer:
    """Fill in what fine_tune says of new layers; an output stays without activation and dropout."""
    if not isinstance(layer, Parametric):
        return layer
    tune = recipe.fine_tune
    filled: dict[str, object] = {"init": layer.init or tune.init}
    if vertex not in (recipe.outputs or ()) and getattr(layer, "out", None) != "classes":
        filled["activation"] = layer.activation or tune.activation
        filled["dropout"] = tune.dropout if layer.dropout is None else layer.dropout
    return layer.model_copy(update=filled)


def misfits(recipe: Recipe, base: ModelGraph) -> Iterator[TLCompileError]:
    """Yield every reason why a recipe does not fit its base, before anything is edited."""
    yield from _not_yet(recipe)
    removed: set[str] = set()
    for vertex, how in recipe.remove.items():
        try:
            region = find_region(base.graph, base.module, base.model, vertex)
        except GraphError as error:
            error.key = ("remove", vertex)
            yield error
            continue
        removed |= {name_of(node) for node in region}
        if how == "replace" and vertex not in recipe.add:
            added = tuple(recipe.add)
            yield NotReplacedError(name=vertex, added=added, key=("remove", vertex))
    yield from _freeze_misfits(recipe, base, removed)
    yield from _output_activations(recipe)


def _freeze_misfits(
    recipe: Recipe, base: ModelGraph, removed: set[str]
) -> Iterator[TLCompileError]:
    for index, point in enumerate(recipe.freeze.upto):
        key = ("freeze", "upto", index)
        try:
            ends = freeze_ends(base, as_point(point))
        except TLCompileError as error:
            error.key = key
            yield error
            continue
        for end in ends:
            if name_of(end) in removed and point not in ("head", "all"):
                kept = [name_of(n) for n in end.all_input_nodes if name_of(n) not in removed]
                how = _edit_word(recipe, name_of(end))
                yield FrozenEditError(
                    name=name_of(end), edit=how, inside=str(point), instead=tuple(kept), key=key
                )
    if len(recipe.freeze.upto) > 1 and {"none", "all"} & set(map(str, recipe.freeze.upto)):
        yield NoEffectError(
            line="freeze.upto",
            because="`none` or `all` beside other points",
            instead="write one of them alone",
            key=("freeze", "upto"),
        )
    for index, vertex in enumerate(recipe.freeze.only):
        try:
            find_region(base.graph, base.module, base.model, vertex)
        except GraphError as error:
            error.key = ("freeze", "only", index)
            yield error


def _edit_word(recipe: Recipe, name: str) -> str:
    hows = {how for v, how in recipe.remove.items() if name == v or name.startswith(f"{v}.")}
    return {"replace": "replaced", "bypass": "bypassed"}.get(next(iter(hows), ""), "removed")


def _output_activations(recipe: Recipe) -> Iterator[TLCompileError]:
    if recipe.task not in LOGIT_TASKS:
        return
    for name in recipe.outputs or ():
        activation = getattr(recipe.add.get(name), "activation", None)
        if activation not in (None, "identity"):
            yield OutputActivationError(
                name=name,
                activation=activation,
                task=recipe.task,
                key=("add", name, "activation"),
            )


def _not_yet(recipe: Recipe) -> Iterator[NotYetError]:
    """Name what this version of the language cannot do; nothing is guessed."""
    if recipe.resize:
        yield NotYetError(
            what="resize", instead="remove: replace the layer and its readers", key=("resize",)
        )
    if recipe.fine_tune.phases is not None:
        yield NotYetError(
            what="fine_tune.phases",
            instead="write epochs, and train once for each freeze point",
            key=("fine_tune", "phases"),
        )
    if recipe.task not in ("classification", "binary"):
        yield NotYetError(
            what=f"task: {recipe.task}", instead="task: classification", key=("task",)
        )
