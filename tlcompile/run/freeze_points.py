"""The freeze points of a base that are worth comparing, each proved for a recipe, on meta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from tlcompile.compiler import compile_opened, start
from tlcompile.errors.advice import NoFeaturesAtPointError
from tlcompile.errors.base import TLCompileError, raise_problems
from tlcompile.graph.head import find_head
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.graph.names import name_of
from tlcompile.graph.program import owned
from tlcompile.graph.reach import ancestors
from tlcompile.graph.stages import find_stages
from tlcompile.model.compiled import CompiledModel
from tlcompile.passes.lookup import as_point
from tlcompile.recipe.freeze import Freeze, FreezePoint, MatchPoint, StagePoint
from tlcompile.recipe.schema import Recipe
from tlcompile.run.costs import feature_bytes
from tlcompile.run.refuse import refuse_untrainable
from tlcompile.zoo.open import open_base

FEW = 4  # points below which the ends of blocks are added
MOST = 8  # points with them: each more costs a compilation, and bytes in the store


@dataclass(frozen=True)
class Candidate:
    """A freeze point of a recipe.

    Attributes:
        text: As `freeze.upto` takes it.
        recipe: With this point, as one phase.
        boundary: The vertices whose rows are its features.
        num_bytes: Of a row, as a run keeps it.
        trainable: Parameters that learn behind it.
        also: Other names of the same point.
    """

    text: str
    recipe: Recipe
    boundary: tuple[str, ...]
    num_bytes: int
    trainable: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A point of the base that this recipe cannot freeze up to.

    Attributes:
        text: As `freeze.upto` takes it.
        error: Why.
    """

    text: str
    error: TLCompileError


def find_points(
    recipe: Recipe, named: Sequence[Recipe], num_classes: int, base: nn.Module | None
) -> tuple[list[Candidate], list[LeftOut]]:
    """Return the points in the order of computation, and what was left out.

    The stages, `head`, and those that the user names; where these are few, the ends of blocks too,
    the last ones first.

    Args:
        recipe: What the user asked for.
        named: The same with the points that the user names.
        num_classes: Of the data.
        base: Your own module instead of the recipe's base.

    Raises:
        Problems: Points that the user names and that cannot be scored; or none can.
    """
    graph, _ = start(open_base(at(recipe, Freeze()), base, load=False))
    found = _Found(num_classes, base)
    own = [at(recipe, freeze) for freeze in (*_stages(graph), Freeze(upto=("head",)))]
    refused = [found.add(at(one, one.freeze)) for one in named]
    _raise_each_once([_worded(error, own) for error in refused if error])
    left = [LeftOut(written(one.freeze), error) for one in own if (error := found.add(one))]
    if len(found.points) < FEW:
        for block in _blocks(graph):
            if len(found.points) < MOST:
                found.add(at(recipe, Freeze(upto=(block,))))
    if not found.points:
        _raise_each_once([one.error for one in left])
    return sorted(found.points.values(), key=lambda one: -one.trainable), left


def _raise_each_once(errors: Sequence[TLCompileError]) -> None:
    """Raise what is wrong; a line that is wrong at every point is told once."""
    raise_problems({str(error): error for error in errors}.values())


def at(recipe: Recipe, freeze: Freeze) -> Recipe:
    """Return a recipe with another freeze point, as one phase."""
    tune = recipe.fine_tune.model_copy(update={"phases": None})
    return recipe.model_copy(update={"freeze": freeze, "fine_tune": tune})


def written(freeze: Freeze) -> str:
    """Write a freeze point as the command line takes it."""
    points = [_written(point) for point in freeze.upto]
    return points[0] if len(points) == 1 else f"[{', '.join(points)}]"


def _written(point: FreezePoint) -> str:
    words = as_point(point)
    if isinstance(words, str):
        return words
    kind, value = words
    return f"{{{kind}: '{value}'}}" if isinstance(point, MatchPoint) else f"{{{kind}: {value}}}"


@dataclass
class _Found:
    """Candidates by their boundary: two names of one point are one candidate."""

    num_classes: int
    base: nn.Module | None
    points: dict[tuple[str, ...], Candidate] = field(default_factory=dict)

    def add(self, recipe: Recipe) -> TLCompileError | None:
        """Prove a point and keep it; return why that cannot be."""
        text = written(recipe.freeze)
        try:
            model = self._proved(recipe)
        except TLCompileError as error:
            return error
        if not model.boundary:
            because = model.not_cacheable or "nothing is frozen, or nothing that computes"
            key = ("freeze", "upto")
            refusal = NoFeaturesAtPointError(point=text, because=because, instead=(), key=key)
            return refusal.at(recipe.where(key))
        boundary = tuple(one.vertex for one in model.boundary)
        known = self.points.get(boundary)
        if known is None:
            trainable = sum(p.numel() for _, p in model.trainable())
            num_bytes = feature_bytes(recipe, model)
            self.points[boundary] = Candidate(text, recipe, boundary, num_bytes, trainable)
        elif text not in (known.text, *known.also):
            self.points[boundary] = replace(known, also=(*known.also, text))
        return None

    def _proved(self, recipe: Recipe) -> CompiledModel:
        opened = open_base(recipe, self.base, load=False)
        model = compile_opened(recipe, opened, self.num_classes, real=False)
        refuse_untrainable(recipe, model, self.num_classes, swept=True)
        return model


def _worded(error: TLCompileError, own: Sequence[Recipe]) -> TLCompileError:
    """Tell a point without features which ones the base has."""
    if isinstance(error, NoFeaturesAtPointError):
        return replace(error, instead=tuple(written(one.freeze) for one in own))
    return error


def _stages(graph: ModelGraph) -> list[Freeze]:
    """Return the stages; where a module has the name of one (ShuffleNet's stage2), by number."""
    names = {name.split(".")[0] for name in graph.names()}
    return [
        Freeze(upto=(StagePoint(stage=int(stage[-1])) if stage in names else stage,))
        for stage in find_stages(graph)
    ]


def _blocks(graph: ModelGraph) -> list[str]:
    """Return the children with weights of the module that has all weights before the head.

    The last one first: what is frozen further on leaves less to train, and less to store.
    """
    head = find_head(graph)
    before = ancestors(head.features) if head else set(graph.vertices())
    owners = [name_of(n) for n in graph.vertices() if n in before and owned(graph.module, n)]
    paths = [name.split(".") for name in owners]
    depth = 0
    while paths and all(
        len(p) > depth + 1 and p[: depth + 1] == paths[0][: depth + 1] for p in paths
    ):
        depth += 1
    return list(dict.fromkeys(".".join(path[: depth + 1]) for path in reversed(paths)))
