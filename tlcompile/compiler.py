"""The compiler on one screen: recipe -> base -> graph -> passes -> programs -> model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.graph import AlreadyCompiledError
from tlcompile.graph.model_graph import ModelGraph, Tap, graph_of_base
from tlcompile.graph.settle import settled
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.split import split_frozen
from tlcompile.graph.writes import separate_writes
from tlcompile.model.build import build_model
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.saved import load_saved
from tlcompile.model.summary import survey
from tlcompile.model.template import Template
from tlcompile.model.weights import fill
from tlcompile.passes.pipeline import run_passes
from tlcompile.passes.plan import freeze_marks, passes_for
from tlcompile.recipe.load import complete
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.base import BaseModel
from tlcompile.zoo.open import open_base

PLACEHOLDER_CLASSES = 2  # where the number of classes is not known and only shapes matter


def compile_recipe(
    recipe: Recipe, base: nn.Module | None = None, *, num_classes: int | None = None
) -> CompiledModel:
    """Compile a recipe into a module with its weights loaded.

    Args:
        recipe: With edits, freeze point, seed.
        base: Your own module instead of `base.model`; it is copied first and never changed.
        num_classes: Of the data; None: as many as the recipe tells.

    Raises:
        GraphError: The recipe does not fit the base, or wants a number of classes.
        WeightsError: The weights do not fit, or cannot be had.
    """
    if isinstance(base, CompiledModel):
        raise AlreadyCompiledError(model=base.summary.model)
    recipe = complete(recipe)
    known = num_classes if num_classes is not None else recipe.known_classes()
    return compile_opened(recipe, open_base(recipe, base), known)


def prove_recipe(recipe: Recipe, *, num_classes: int = PLACEHOLDER_CLASSES) -> CompiledModel:
    """Compile a recipe without weights and data; every tensor of the result lives on meta."""
    return compile_opened(recipe, open_base(recipe, load=False), num_classes, real=False)


def compile_opened(
    recipe: Recipe, opened: BaseModel, num_classes: int | None, *, real: bool = True
) -> CompiledModel:
    """Compile with a base that is open and gives its tensors away; not `real`: on meta."""
    return compile_together([recipe], opened, num_classes, real=real)


def compile_together(
    recipes: Sequence[Recipe], opened: BaseModel, num_classes: int | None, *, real: bool = True
) -> CompiledModel:
    """Compile recipes that differ in what they freeze: the prefix computes the boundary of each.

    One pass over an image gives the rows of all of them, and nothing else is computed. Each row has
    the key, and in `exact` the bits, that its own recipe gives it.

    Args:
        recipes: Of one base. The edits are those of the first; a frozen part that another one edits
            in its own way has another key, and that recipe computes it itself.
        opened: The base; it gives its tensors away.
        num_classes: As for `compile_opened`.
        real: Else on meta.
    """
    first = recipes[0]
    try:
        model_graph, module = start(opened, real=real)
    except TLCompileError as error:  # images too small for the base
        raise error.at(first.where(error.key) if error.key else None) from error.__cause__
    if opened.run and real:
        load_saved(module, opened.run, first.where(("base", "run")))
    if len(recipes) > 1:
        for recipe in recipes:
            _tap(recipe.phases()[0], model_graph)
    return _edited(first, model_graph, num_classes, opened, module if real else None)


def compile_template(recipe: Recipe, opened: BaseModel, num_classes: int | None) -> Template:
    """Compile a recipe on meta, to be filled with the tensors of `weights_of` by any seed."""
    graph, _ = start(opened)
    return Template(_edited(recipe, graph, num_classes, opened, None), graph)


def weights_of(recipe: Recipe, opened: BaseModel) -> nn.Module:
    """Return the module that has an opened base's tensors, those of a run loaded."""
    if not opened.run:
        return opened.module
    _, module = start(opened, real=True)
    load_saved(module, opened.run, recipe.where(("base", "run")))
    return module


def _tap(recipe: Recipe, model_graph: ModelGraph) -> None:
    """Note what a recipe freezes, and freeze it here, too: it stays in eval mode."""
    marked = replace(model_graph, frozen=set(), frozen_alone=set(), notes=[])
    try:
        run_passes(marked, freeze_marks(recipe))
    except TLCompileError as error:
        raise error.at(recipe.where(error.key)) from error.__cause__
    model_graph.taps.append(Tap(frozenset(marked.frozen), frozenset(marked.frozen_alone)))
    model_graph.frozen |= marked.frozen
    model_graph.frozen_alone |= marked.frozen_alone


def start(opened: BaseModel, *, real: bool = False) -> tuple[ModelGraph, nn.Module]:
    """Return the graph that recipes for a base edit, and the module that has its tensors."""
    model_graph, module = graph_of_base(opened), opened.module
    record_shapes(model_graph)
    separate_writes(model_graph)
    for recipe, classes in opened.steps:  # what the runs did that it has been through
        module = _edited(recipe, model_graph, classes, opened, module if real else None)
        model_graph = settled(model_graph)
    return model_graph, module


def _edited(
    recipe: Recipe,
    graph: ModelGraph,
    num_classes: int | None,
    opened: BaseModel,
    base: nn.Module | None,
) -> CompiledModel:
    recipe = recipe.phases()[0]  # later phases differ in what is frozen, and in rates
    original = survey(graph, opened.weights, with_stages=recipe.fine_tune.wants_stages())
    try:
        run_passes(graph, passes_for(recipe, graph, num_classes))
        record_shapes(graph)
        split = split_frozen(graph)
    except TLCompileError as error:
        raise error.at(recipe.where(error.key)) from error.__cause__
    model = build_model(graph, split, original)
    if base is not None:
        fill(model, graph, base)
    return model
