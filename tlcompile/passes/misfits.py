"""Every reason why a recipe does not fit its base, found before anything is edited."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from tlcompile.errors.base import RecipeKey, TLCompileError
from tlcompile.errors.edits import (
    FrozenEditError,
    NoEffectError,
    NotReplacedError,
    OutputActivationError,
)
from tlcompile.errors.graph import GraphError, UnknownVertexError
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_region, find_vertex, name_of
from tlcompile.passes.freeze_only import lone_vertices
from tlcompile.passes.freeze_upto import freeze_ends
from tlcompile.passes.lookup import as_point, head_of, output_names, shown_point
from tlcompile.recipe.freeze import FreezePoint
from tlcompile.recipe.layers.activation import ActivationLayer
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.tasks import LOGIT_TASKS


def misfits(recipe: Recipe, base: ModelGraph) -> Iterator[TLCompileError]:
    """Yield every reason why a recipe does not fit its base, before anything is edited."""
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
    yield from _resize_misfits(recipe, base, removed)
    yield from _freeze_misfits(recipe, base, removed)
    yield from _unknown_readings(recipe, base)
    yield from _empty_lists(recipe)
    yield from _output_activations(recipe, base)
    head = find_head(base)
    if recipe.head == "auto" and head is not None and name_of(head.classifier) in removed:
        yield NoEffectError(
            line="head: auto",
            because=f"the recipe itself removes the classifier '{name_of(head.classifier)}'",
            instead="drop the line",
            key=("head",),
        )


def _unknown_readings(recipe: Recipe, base: ModelGraph) -> Iterator[TLCompileError]:
    """Yield every name under inputs, feeds and outputs that is neither the base's nor added."""
    added = (*recipe.add, *recipe.inputs)
    lists: list[tuple[RecipeKey, tuple[str, ...]]] = [(("outputs",), recipe.outputs or ())]
    for vertex, layer in recipe.add.items():
        lists += [
            (("add", vertex, "inputs"), layer.inputs),
            (("add", vertex, "feeds"), layer.feeds),
        ]
    for key, names in lists:
        for index, name in enumerate(names):
            if any(name == own or name.startswith(f"{own}.") for own in added):
                continue
            try:
                find_region(base.graph, base.module, base.model, name)
            except GraphError as error:
                error.key = (*key, index)
                if isinstance(error, UnknownVertexError):
                    error.vertices = (*added, *error.vertices)
                yield error


def _resize_misfits(
    recipe: Recipe, base: ModelGraph, removed: set[str]
) -> Iterator[TLCompileError]:
    head = find_head(base)
    for vertex in recipe.resize:
        try:
            name = name_of(find_vertex(base.graph, base.module, base.model, vertex))
        except GraphError as error:
            error.key = ("resize", vertex)
            yield error
            continue
        if name in removed:
            yield NoEffectError(
                line=f"resize: {vertex}",
                because=f"'{name}' is {_edit_word(recipe, name)} by this recipe",
                instead=f"drop {vertex} from resize",
                key=("resize", vertex),
            )
        elif recipe.head == "auto" and head is not None and name == name_of(head.classifier):
            yield NoEffectError(
                line=f"resize: {vertex}",
                because=f"'{name}' is the classifier, which head: auto replaces",
                instead="drop head: auto, or drop the line",
                key=("resize", vertex),
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
            yield _new(recipe, point, error)
            continue
        if ends and all(end.op in ("placeholder", "get_attr") for end in ends):
            yield _computes_nothing(point, ends[-1], key)
        for end in ends:
            if name_of(end) in removed and point not in ("head", "all"):
                kept = _kept_before(end, removed)
                how = _edit_word(recipe, name_of(end))
                yield FrozenEditError(
                    name=name_of(end), edit=how, inside=shown_point(point), instead=kept, key=key
                )
    if len(recipe.freeze.upto) > 1 and {"none", "all"} & set(map(str, recipe.freeze.upto)):
        yield NoEffectError(
            line="freeze.upto",
            because="`none` or `all` beside other points",
            instead="write one of them alone",
            key=("freeze", "upto"),
        )
    yield from _lone_misfits(recipe, base, removed)


def _new(recipe: Recipe, point: FreezePoint, error: TLCompileError) -> TLCompileError:
    """Return an error about a name; where an added layer has it, say that this cannot be frozen."""
    name = str(point)
    if name not in recipe.add or not isinstance(error, UnknownVertexError):
        return error
    return NoEffectError(
        line=f"{'.'.join(map(str, error.key[:2]))}: {name}",
        because=f"'{name}' is new, and a layer without pretrained weights cannot be frozen",
        instead="write freeze: head, which freezes all but the classifier, or a vertex of the base",
        key=error.key,
    )


def _computes_nothing(point: FreezePoint, end: fx.Node, key: RecipeKey) -> NoEffectError:
    """Word that a freeze point has nothing behind it: an input, or a parameter by itself."""
    alone = f"write freeze: {{only: [{name_of(end)}]}}"
    return NoEffectError(
        line=f"freeze.upto: {shown_point(point)}",
        because=f"'{name_of(end)}' computes nothing and reads nothing",
        instead=alone if end.op == "get_attr" else "name a vertex that reads it",
        key=key,
    )


def _lone_misfits(recipe: Recipe, base: ModelGraph, removed: set[str]) -> Iterator[TLCompileError]:
    classifiers = _replaced_classifiers(recipe, base)
    for index, vertex in enumerate(recipe.freeze.only):
        key = ("freeze", "only", index)
        try:
            region = lone_vertices(base, as_point(vertex))
        except GraphError as error:
            error.key = key
            yield _new(recipe, vertex, error)
            continue
        gone = [name_of(node) for node in region if name_of(node) in removed]
        new = [name_of(node) for node in region if node in classifiers]
        if gone or new:
            how = (
                f"{_edit_word(recipe, gone[0])} by this recipe" if gone else "replaced: head: auto"
            )
            yield NoEffectError(
                line=f"freeze.only: {shown_point(vertex)}",
                because=f"'{(gone or new)[0]}' is {how}",
                instead=f"drop {(gone or new)[0]} from freeze.only",
                key=key,
            )


def _replaced_classifiers(recipe: Recipe, base: ModelGraph) -> tuple[fx.Node, ...]:
    head = find_head(base)
    try:
        auto = head_of(recipe, base) == "auto"
    except GraphError:  # an unknown name, which another line tells
        auto = False
    return head.classifiers if head is not None and auto else ()


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


def _empty_lists(recipe: Recipe) -> Iterator[NoEffectError]:
    """Yield lists that name nothing, and outputs that are named twice."""
    written = recipe.freeze.model_fields_set  # a resolved recipe writes both
    only_nothing = written == {"only"} and not recipe.freeze.only
    lists: list[tuple[RecipeKey, tuple[object, ...] | None, str]] = [
        (("freeze", "upto"), recipe.freeze.upto, "write freeze: none, or drop the line"),
        (("freeze", "only"), () if only_nothing else None, "drop the line, or name a vertex"),
        (("outputs",), recipe.outputs, "drop the line, or name a vertex"),
    ]
    for key, names, instead in lists:
        if names == ():
            line = f"{'.'.join(map(str, key))}: []"
            yield NoEffectError(line=line, because="it names nothing", instead=instead, key=key)
    outputs = recipe.outputs or ()
    for index, name in enumerate(outputs):
        if name in outputs[:index]:
            yield NoEffectError(
                line=f"outputs: {name}",
                because="it is named twice",
                instead=f"name '{name}' once",
                key=("outputs", index),
            )


def _output_activations(recipe: Recipe, base: ModelGraph) -> Iterator[TLCompileError]:
    tasks = recipe.output_tasks()
    for name in sorted(output_names(recipe, base) & recipe.add.keys()):
        task = tasks.get(name) or tasks.get("")
        layer = recipe.add[name]
        alone = isinstance(layer, ActivationLayer)
        field = "name" if alone else "activation"
        activation = getattr(layer, field, None)
        if task is None or task.task not in LOGIT_TASKS or activation in (None, "identity"):
            continue
        yield OutputActivationError(
            name=name,
            activation=activation,
            task=task.task,
            before=layer.inputs[0] if alone and layer.inputs else "",
            key=("add", name, field),
        )
