"""The compiler on one screen: recipe -> base -> graph -> passes -> programs -> model."""

from __future__ import annotations

import copy

from torch import nn

from tlcompile.errors.base import TLCompileError
from tlcompile.graph.model_graph import ModelGraph, graph_of_base
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.split import split_frozen
from tlcompile.model.build import build_model
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.summary import survey
from tlcompile.model.weights import fill
from tlcompile.passes.pipeline import run_passes
from tlcompile.passes.plan import passes_for
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.base import BaseModel, base_from_module
from tlcompile.zoo.open import open_base

PLACEHOLDER_CLASSES = 2  # where the number of classes is not known and only shapes matter


def compile_recipe(
    recipe: Recipe, base: nn.Module | None = None, *, num_classes: int | None = None
) -> CompiledModel:
    """Compile a recipe into a module with its weights loaded.

    Args:
        recipe: What the user asked for.
        base: Your own module instead of `base.model`; it is copied first and never changed.
        num_classes: Classes of the data, for `out: classes` and `head: auto`; None: as many as
            the recipe tells by data.classes, data.dataset or task: binary.

    Raises:
        ClassesUnknownError: The number of classes is needed and nobody says it.
        GraphError: The recipe does not fit the base model.
        WeightsError: The weights do not fit, or cannot be had.
    """
    known = num_classes if num_classes is not None else recipe.known_classes()
    return compile_opened(recipe, open_any(recipe, base), known)


def prove_recipe(recipe: Recipe, *, num_classes: int = PLACEHOLDER_CLASSES) -> CompiledModel:
    """Compile a recipe without weights and data; every tensor of the result lives on meta."""
    return _compile(recipe, open_base(recipe, load=False), num_classes)[1]


def skeleton(recipe: Recipe, base: nn.Module | None, *, num_classes: int) -> CompiledModel:
    """Compile a recipe with real tensors of no meaning, to be filled from a bundle."""
    return compile_opened(recipe, open_any(recipe, base, load=False), num_classes)


def open_any(recipe: Recipe, base: nn.Module | None = None, *, load: bool = True) -> BaseModel:
    """Open the recipe's base, or wrap a copy of the user's own module."""
    if base is None:
        return open_base(recipe, load=load)
    return base_from_module(copy.deepcopy(base), recipe.base.size, recipe.inputs)


def compile_opened(recipe: Recipe, opened: BaseModel, num_classes: int | None) -> CompiledModel:
    """Compile with a base that is open; it gives its tensors away."""
    model_graph, model = _compile(recipe, opened, num_classes)
    fill(model, model_graph, opened.module)
    return model


def _compile(
    recipe: Recipe, opened: BaseModel, num_classes: int | None
) -> tuple[ModelGraph, CompiledModel]:
    model_graph = graph_of_base(opened)
    record_shapes(model_graph)
    original = survey(model_graph, opened.weights)
    try:
        run_passes(model_graph, passes_for(recipe, model_graph, num_classes))
        record_shapes(model_graph)
        split = split_frozen(model_graph)
    except TLCompileError as error:
        raise error.at(recipe.where(error.key)) from error.__cause__
    return model_graph, build_model(model_graph, split, original)
