"""From a recipe to passes, in one fixed order whatever the order in the file.

freeze marks (names of the base) -> inputs -> remove -> add (what is read first) -> head -> outputs ->
dead -> check.
Reading this file and compiler.py is understanding the compiler.
"""

from __future__ import annotations

from collections.abc import Collection

from tlcompile.errors.base import raise_problems
from tlcompile.errors.edits import ClassesUnknownError, CycleError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.passes.add_input import AddInput
from tlcompile.passes.add_layer import AddLayer
from tlcompile.passes.base import Pass
from tlcompile.passes.check_frozen import CheckFrozen
from tlcompile.passes.drop_dead_vertices import DropDeadVertices
from tlcompile.passes.freeze_only import FreezeOnly
from tlcompile.passes.freeze_upto import FreezeUpto
from tlcompile.passes.lookup import as_point, head_of, output_names
from tlcompile.passes.misfits import misfits
from tlcompile.passes.remove_vertex import RemoveVertex
from tlcompile.passes.replace_head import ReplaceHead
from tlcompile.passes.set_outputs import SetOutputs
from tlcompile.recipe.layers import Layer, Parametric
from tlcompile.recipe.schema import Recipe


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
        FreezeOnly(vertex=as_point(v), key=("freeze", "only", i))
        for i, v in enumerate(recipe.freeze.only)
    ]
    edits: list[Pass] = [
        AddInput(vertex=name, shape=i.shape, dtype=i.dtype, key=("inputs", name))
        for name, i in recipe.inputs.items()
        if name not in base.sample_shapes
    ]
    edits += [
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
