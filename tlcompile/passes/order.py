"""In which order the lines of `remove` and `add` are carried out, whatever their order in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from torch import fx

from tlcompile.errors.edits import CycleError
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.reach import descendants
from tlcompile.passes.remove_vertex import crossing
from tlcompile.recipe.layers.base import Layer
from tlcompile.recipe.schema import Recipe


def removals(
    recipe: Recipe, base: ModelGraph
) -> Iterator[tuple[str, Literal["replace", "drop", "bypass"]]]:
    """Yield the lines of `remove` in the order of computation, drops last.

    A bypass gives its readers something else to read, perhaps what another line drops.
    """
    place = {node: index for index, node in enumerate(base.vertices())}
    first = {vertex: place[_region(base, vertex)[0]] for vertex in recipe.remove}
    for vertex in sorted(first, key=lambda v: (recipe.remove[v] == "drop", first[v])):
        yield vertex, recipe.remove[vertex]


def additions(recipe: Recipe, base: ModelGraph) -> Iterator[tuple[str, Layer]]:
    """Yield the added layers, each behind those that change what it reads; else by name.

    Raises:
        CycleError: They read each other in a circle.
    """
    waiting: dict[str, Layer] = dict(recipe.add)
    changed = {v: _changed_by(recipe, base, v) for v in waiting}
    sources = {v: _sources(recipe, base, v) for v in waiting}
    while waiting:
        free = [v for v, layer in waiting.items() if not _reads(layer, waiting, besides=v)]
        if not free:
            circle = _circle(waiting)
            raise CycleError(names=circle, key=("add", circle[0]))
        settled = [v for v in free if not any(sources[v] & changed[o] for o in waiting if o != v)]
        # Where each changes what the other reads, the graph itself shows whether it is a circle.
        vertex = min(settled or free)
        yield vertex, waiting.pop(vertex)


def behind_head(recipe: Recipe, base: ModelGraph) -> set[str]:
    """Return the added layers that read what the classifier computes: `head: auto` comes first."""
    head = find_head(base)
    after = descendants(head.classifiers) if head else set()
    found = {v for v in recipe.add if _sources(recipe, base, v) & after}
    more: set[str] = found
    while more:
        more = {v for v, layer in recipe.add.items() if _reads(layer, found, besides=v)} - found
        found |= more
    return found


def _changed_by(recipe: Recipe, base: ModelGraph, vertex: str) -> set[fx.Node]:
    """Return the vertices of the base that compute something else because of an added one."""
    replaced = set(_region(base, vertex))
    fed = [node for name in recipe.add[vertex].feeds for node in _region(base, name)]
    return descendants([*replaced, *fed]) - replaced


def _sources(recipe: Recipe, base: ModelGraph, vertex: str) -> set[fx.Node]:
    """Return the vertices of the base that an added one reads."""
    layer = recipe.add[vertex]
    if not layer.inputs:
        return set(crossing(_region(base, vertex))[0])
    return {_region(base, name)[-1] for name in layer.inputs if _region(base, name)}


def _region(base: ModelGraph, name: str) -> list[fx.Node]:
    """Return the vertices that a name stands for in the base; an unknown one is refused later."""
    exact = [node for node in base.vertices() if name_of(node) == name]
    return exact or [node for node in base.vertices() if name_of(node).startswith(f"{name}.")]


def _circle(waiting: dict[str, Layer]) -> tuple[str, ...]:
    """Return one circle among layers that all wait for another, in the order of computation."""
    walk = [next(iter(waiting))]
    while walk[-1] not in walk[:-1]:
        layer = waiting[walk[-1]]
        walk.append(next(v for v in waiting if _reads(layer, {v: layer}, besides=walk[-1])))
    return tuple(reversed(walk[walk.index(walk[-1]) :]))


def _reads(layer: Layer, names: Iterable[str], besides: str) -> bool:
    own = [n for n in names if n != besides or besides in layer.inputs]
    return any(read == name or read.startswith(f"{name}.") for read in layer.inputs for name in own)
