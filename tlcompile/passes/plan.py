"""From a recipe to passes, in one fixed order whatever the order in the file.

freeze marks (names of the base) -> inputs -> remove -> resize -> add (what is read first) -> head ->
add what reads the head -> outputs -> dead -> override -> check.
Reading this file and compiler.py is understanding the compiler.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tlcompile.errors.base import raise_problems
from tlcompile.errors.edits import ClassCountError, ClassesUnknownError
from tlcompile.errors.graph import GraphError
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.resize_lines import Line
from tlcompile.passes.add_input import AddInput
from tlcompile.passes.add_layer import AddLayer
from tlcompile.passes.base import Pass
from tlcompile.passes.check_frozen import CheckFrozen
from tlcompile.passes.defaults import unused_defaults, with_defaults
from tlcompile.passes.drop_dead_vertices import DropDeadVertices
from tlcompile.passes.freeze_only import FreezeOnly
from tlcompile.passes.freeze_upto import FreezeUpto
from tlcompile.passes.lookup import as_point, head_of, output_names
from tlcompile.passes.misfits import misfits
from tlcompile.passes.order import additions, behind_head, removals
from tlcompile.passes.override_settings import OverrideSettings, overridable, probability
from tlcompile.passes.remove_vertex import RemoveVertex
from tlcompile.passes.replace_head import ReplaceHead
from tlcompile.passes.resize_vertex import ResizeVertex
from tlcompile.passes.set_outputs import SetOutputs
from tlcompile.recipe.schema import Recipe, Resize


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
    head, returned = head_of(recipe, base), output_names(recipe, base)
    unused = unused_defaults(recipe, returned, head_auto=head == "auto")
    raise_problems(e.at(recipe.where(e.key)) for e in unused)
    logits = _known_logits(recipe, base, num_classes)
    seed = recipe.fine_tune.seed
    edits: list[Pass] = [
        AddInput(vertex=name, shape=i.shape, dtype=i.dtype, key=("inputs", name))
        for name, i in recipe.inputs.items()
        if name not in base.sample_shapes
    ]
    edits += [
        RemoveVertex(vertex=vertex, how=how, key=("remove", vertex))
        for vertex, how in removals(recipe, base)
    ]
    if recipe.resize:
        lines = tuple((v, _line(resize)) for v, resize in recipe.resize.items())
        init = recipe.fine_tune.init
        classifiers = find_head(base).classifiers if head == "auto" else ()  # type: ignore[union-attr]
        replaced = tuple(map(name_of, classifiers))
        edits.append(
            ResizeVertex(lines=lines, seed=seed, init=init, replaced=replaced, key=("resize",))
        )
    added = _additions(recipe, base, returned, logits)
    if head == "auto":
        init, late = recipe.fine_tune.init, behind_head(recipe, base)
        edits += [one for one in added if one.vertex not in late]
        edits.append(ReplaceHead(classes=logits, seed=seed, init=init, key=("head",)))
        edits += [one for one in added if one.vertex in late]
    else:
        edits += added
    if recipe.outputs or edits:
        edits.append(SetOutputs(vertices=recipe.outputs or (), key=("outputs",)))
        edits.append(DropDeadVertices(key=("outputs",)))
    override = recipe.fine_tune.override
    if override is not None:
        edits.append(
            OverrideSettings(
                vertices=overridable(base, frozen_throughout(recipe, base)),
                dropout=probability(override.dropout),
                activation=override.activation,
                key=("fine_tune", "override"),
            )
        )
    points = map(as_point, recipe.freeze.upto)
    words = tuple(":".join(p) if isinstance(p, tuple) else p for p in points)
    return (*freeze_marks(recipe), *edits, CheckFrozen(points=words, key=("freeze", "upto")))


def freeze_marks(recipe: Recipe) -> list[Pass]:
    """Return the passes that mark what is frozen; they read the base, before any edit."""
    points = tuple(map(as_point, recipe.freeze.upto))
    alone = [
        FreezeOnly(vertex=as_point(v), key=("freeze", "only", i))
        for i, v in enumerate(recipe.freeze.only)
    ]
    return [FreezeUpto(points=points, key=("freeze", "upto")), *alone]


def frozen_throughout(recipe: Recipe, base: ModelGraph) -> set[str]:
    """Return the vertices of the base that are frozen in every phase.

    Raises:
        GraphError: A phase names what the base does not have.
    """
    frozen = []
    for key, freeze in recipe.freezes():
        marked = replace(base, frozen=set(), frozen_alone=set(), notes=[])
        for one in freeze_marks(recipe.model_copy(update={"freeze": freeze})):
            try:
                one.apply(marked)
            except GraphError as error:
                error.key = key
                raise
        frozen.append(marked.frozen | marked.frozen_alone)
    return set.intersection(*frozen)


def _additions(
    recipe: Recipe, base: ModelGraph, returned: Collection[str], logits: int
) -> list[AddLayer]:
    """Return the passes of `add`, in the order of computation, with fine_tune's defaults."""
    return [
        AddLayer(
            vertex=v,
            layer=with_defaults(recipe, layer, returned=v in returned),
            classes=logits,
            seed=recipe.fine_tune.seed,
            key=("add", v),
        )
        for v, layer in additions(recipe, base)
    ]


def _line(resize: Resize) -> Line:
    return Line(
        out=resize.out,
        in_=resize.in_,
        init=resize.init,
        fan_out_init=resize.fan_out_init,
        overlap=resize.overlap,
    )


def _known_logits(recipe: Recipe, base: ModelGraph, num_classes: int | None) -> int:
    """Return the number of logits; 0 where no layer asks for it.

    Raises:
        ClassCountError: It is less than one.
        ClassesUnknownError: A layer is as wide as there are classes, and nobody says how many.
    """
    if not isinstance(recipe.task, str):
        return 0  # each output says its own width
    if num_classes is not None and num_classes < 1:
        raise ClassCountError(found=num_classes)
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
