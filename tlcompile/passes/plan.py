"""From a recipe to passes, in one fixed order whatever the order in the file.

freeze marks (names of the base) -> remove -> add (inputs first) -> head -> outputs -> dead -> check.
Reading this file and compiler.py is understanding the compiler.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import fx

from tlcompile.errors.base import TLCompileError, raise_problems
from tlcompile.errors.edits import (
    ClassesUnknownError,
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
from tlcompile.recipe.layers import ActivationLayer, Layer, Parametric
from tlcompile.recipe.schema import FreezePoint, Recipe, StagePoint, VertexPoint

LOGIT_TASKS = ("classification", "binary", "multilabel")


def passes_for(recipe: Recipe, base: ModelGraph, num_classes: int | None) -> tuple[Pass, ...]:
    """Return the passes of a recipe, after looking every name up in the base.

    Args:
        recipe: What the user asked for.
        base: The base model's graph; it is read, not changed.
        num_classes: Classes of the data, or a placeholder; None: not known.

    Raises:
        Problems: Names that the base does not have, and other misfits, all at once.
    """
    raise_problems(e.at(recipe.where(e.key)) for e in misfits(recipe, base))
    logits = _known_logits(recipe, base, num_classes)
    seed = recipe.fine_tune.seed
    points = tuple(map(as_point, recipe.freeze.upto))
    marks: list[Pass] = [FreezeUpto(points=points, key=("freeze", "upto"))]
    marks += [
        FreezeOnly(vertex=v, key=("freeze", "only", i)) for i, v in enumerate(recipe.freeze.only)
    ]
    edits: list[Pass] = [
        RemoveVertex(vertex=vertex, how=how, key=("remove", vertex))
        for vertex, how in recipe.remove.items()
    ]
    edits += [
        AddLayer(vertex=v, layer=layer, classes=logits, seed=seed, key=("add", v))
        for v, layer in in_order(recipe, output_names(recipe, base))
    ]
    if head_of(recipe, base) == "auto":
        init = recipe.fine_tune.init
        edits.append(ReplaceHead(classes=logits, seed=seed, init=init, key=("head",)))
    if recipe.outputs or edits:
        edits.append(SetOutputs(vertices=recipe.outputs or (), key=("outputs",)))
        edits.append(DropDeadVertices(key=("outputs",)))
    words = tuple(":".join(p) if isinstance(p, tuple) else p for p in points)
    return (*marks, *edits, CheckFrozen(points=words, key=("freeze", "upto")))


def _known_logits(recipe: Recipe, base: ModelGraph, num_classes: int | None) -> int:
    """Return the number of logits; 0 where no layer asks for it.

    Raises:
        ClassesUnknownError: A layer is as wide as there are classes, and nobody says how many.
    """
    if num_classes is not None:
        return num_logits(recipe, num_classes)
    asking = [v for v, layer in recipe.add.items() if getattr(layer, "out", None) == "classes"]
    if asking:
        raise ClassesUnknownError(name=asking[0], key=("add", asking[0], "out"))
    if head_of(recipe, base) == "auto":
        raise ClassesUnknownError(name="head: auto", key=("head",))
    return 0


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
    return "keep" if head.classifier in _edited(recipe, base) else "auto"


def _edited(recipe: Recipe, base: ModelGraph) -> set[fx.Node]:
    """Return the vertices that the recipe removes or resizes."""
    return {
        node
        for vertex in (*recipe.remove, *recipe.resize)
        for node in find_region(base.graph, base.module, base.model, vertex)
    }


def output_names(recipe: Recipe, base: ModelGraph) -> set[str]:
    """Return the names of what is returned; a replaced region that ends the base is one."""
    if recipe.outputs is not None:
        return set(recipe.outputs)
    end = base.eval_output or base.output()
    returned = {name_of(node) for node in ([end] if base.eval_output else end.all_input_nodes)}
    inside = {
        vertex
        for vertex in recipe.remove
        if any(name.startswith(f"{vertex}.") for name in returned)
    }
    return returned | inside


def as_point(point: FreezePoint) -> str | tuple[str, str]:
    """Return a freeze point as plain text, or as a pair that says which kind it is."""
    match point:
        case VertexPoint():
            return "vertex", point.vertex
        case StagePoint():
            return "stage", str(point.stage)
    return str(point)


def in_order(recipe: Recipe, outputs: Collection[str] = ()) -> list[tuple[str, Layer]]:
    """Return the added layers, each behind those that it reads, with fine_tune's defaults.

    Raises:
        CycleError: They read each other in a circle.
    """
    waiting: dict[str, Layer] = dict(recipe.add)
    done: list[tuple[str, Layer]] = []
    while waiting:
        ready = [v for v, layer in waiting.items() if not _reads(layer, waiting, besides=v)]
        if not ready:
            circle = _circle(waiting)
            raise CycleError(names=circle, key=("add", circle[0]))
        layer = waiting.pop(ready[0])
        done.append((ready[0], _with_defaults(recipe, layer, returned=ready[0] in outputs)))
    return done


def _circle(waiting: dict[str, Layer]) -> tuple[str, ...]:
    """Return one circle among layers that all wait for another, in the order of computation."""
    walk = [next(iter(waiting))]
    while walk[-1] not in walk[:-1]:
        layer = waiting[walk[-1]]
        walk.append(next(v for v in waiting if _reads(layer, {v: layer}, besides=walk[-1])))
    return tuple(reversed(walk[walk.index(walk[-1]) :]))


def _reads(layer: Layer, names: dict[str, Layer], besides: str) -> bool:
    own = [n for n in names if n != besides or besides in layer.inputs]
    return any(read == name or read.startswith(f"{name}.") for read in layer.inputs for name in own)


def _with_defaults(recipe: Recipe, layer: Layer, *, returned: bool) -> Layer:
    """Fill in what fine_tune says of new layers; an output stays without activation and dropout."""
    if not isinstance(layer, Parametric):
        return layer
    tune = recipe.fine_tune
    filled: dict[str, object] = {"init": layer.init or tune.init}
    if not returned and getattr(layer, "out", None) != "classes":
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
        names = {name_of(node) for node in region}
        if names & removed:
            yield NoEffectError(
                line=f"remove.{vertex}: {how}",
                because=f"another line removes '{min(names & removed)}' already",
                instead="keep one of the two lines",
                key=("remove", vertex),
            )
        removed |= names
        if how == "replace" and vertex not in recipe.add:
            added = tuple(recipe.add)
            yield NotReplacedError(name=vertex, added=added, key=("remove", vertex))
    yield from _freeze_misfits(recipe, base, removed)
    yield from _output_activations(recipe, base)
    head = find_head(base)
    if recipe.head == "auto" and head is not None and name_of(head.classifier) in removed:
        yield NoEffectError(
            line="head: auto",
            because=f"the recipe itself removes the classifier '{name_of(head.classifier)}'",
            instead="drop the line",
            key=("head",),
        )


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
                kept = _kept_before(end, removed)
                how = _edit_word(recipe, name_of(end))
                yield FrozenEditError(
                    name=name_of(end), edit=how, inside=str(point), instead=kept, key=key
                )
    if len(recipe.freeze.upto) > 1 and {"none", "all"} & set(map(str, recipe.freeze.upto)):
        yield NoEffectError(
            line="freeze.upto",
            because="`none` or `all` beside other points",
            instead="write one of them alone",
            key=("freeze", "upto"),
        )
    for index, vertex in enumerate(recipe.freeze.only):
        key = ("freeze", "only", index)
        try:
            region = find_region(base.graph, base.module, base.model, vertex)
        except GraphError as error:
            error.key = key
            yield error
            continue
        gone = [name_of(node) for node in region if name_of(node) in removed]
        if gone:
            yield NoEffectError(
                line=f"freeze.only: {vertex}",
                because=f"'{gone[0]}' is {_edit_word(recipe, gone[0])} by this recipe",
                instead=f"drop {vertex} from freeze.only",
                key=key,
            )


def _kept_before(end: fx.Node, removed: set[str]) -> tuple[str, ...]:
    """Return the last vertices before `end` that the recipe keeps."""
    kept: dict[str, None] = {}
    waiting = [end]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if name_of(source) in removed:
                waiting.append(source)
            elif source.op != "placeholder":
                kept[name_of(source)] = None
    return tuple(kept)


def _edit_word(recipe: Recipe, name: str) -> str:
    hows = {how for v, how in recipe.remove.items() if name == v or name.startswith(f"{v}.")}
    return {"replace": "replaced", "bypass": "bypassed"}.get(next(iter(hows), ""), "removed")


def _output_activations(recipe: Recipe, base: ModelGraph) -> Iterator[TLCompileError]:
    if recipe.task not in LOGIT_TASKS:
        return
    for name in sorted(output_names(recipe, base) & recipe.add.keys()):
        layer = recipe.add[name]
        of_layer = layer.name if isinstance(layer, ActivationLayer) else None
        activation = getattr(layer, "activation", of_layer)
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
