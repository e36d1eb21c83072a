"""What the words of a recipe mean in this base: its head, its outputs, its freeze points."""

from __future__ import annotations

from torch import fx

from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import find_region, name_of
from tlcompile.recipe.freeze import FreezePoint, MatchPoint, StagePoint, VertexPoint
from tlcompile.recipe.schema import Recipe


def head_of(recipe: Recipe, base: ModelGraph) -> str:
    """Return `auto` or `keep`: keep where the recipe itself edits the classifier or the outputs."""
    if recipe.head is not None:
        return recipe.head
    head = find_head(base)
    if recipe.base.run is not None or recipe.outputs is not None or head is None:
        return "keep"
    return "keep" if _edited(recipe, base).intersection(head.classifiers) else "auto"


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
        case MatchPoint():
            return "match", point.match
    return str(point)


def shown_point(point: FreezePoint) -> str:
    """Word a freeze point for messages and tables."""
    words = as_point(point)
    return words if isinstance(words, str) else " ".join(words)
