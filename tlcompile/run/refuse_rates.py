"""Refuse settings of rates that no parameter takes, in no phase. Needs neither weights nor data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tlcompile.errors.base import RecipeKey, TLCompileError, raise_problems
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.graph import UnknownVertexError
from tlcompile.errors.rates import FrozenRateError, NothingMonitoredError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.fine_tune import STAGES
from tlcompile.recipe.schema import Recipe
from tlcompile.run.groups import Stages, in_region, rules_of, written

Phases = Sequence[tuple[Recipe, CompiledModel]]

_WHY = {
    "layer_decay": "no layer that trains lies in a stage, or each has an lr of its own",
    "no_decay": "no weight decay is left that it could take away",
    "bias_lr_factor": "no bias trains",
    "weight_decay": "no parameter takes it: its optimizer has no weight decay, or an inner name says more",
    "lr": "no parameter takes it: there is none, or inner names say more",
    "optimizer": "no parameter takes it: there is none, or inner names say more",
}


def refuse_unfit_rates(
    recipe: Recipe, models: Sequence[CompiledModel], *, swept: bool = False
) -> None:
    """Refuse settings that name nothing, or that nothing takes in any phase.

    Args:
        recipe: What the user asked for.
        models: Compiled, one a phase; they may live on meta.
        swept: Whether it is a point of a sweep, where a line may be idle at some points.

    Raises:
        Problems: All reasons at once.
    """
    phases = list(zip(recipe.phases(), models, strict=True))
    found = [*_unknown(phases), *_frozen(recipe, phases)]
    if not swept and not found:
        found = [*_beside_phases(recipe), *_idle(phases)]
    raise_problems(error.at(recipe.where(error.key)) for error in found)


def refuse_without_validation(recipe: Recipe, monitor: str) -> None:
    """Refuse to wait for a value of validation; call it where there are no validation images.

    Args:
        recipe: What the user asked for.
        monitor: What is waited for, as it would be with validation images.

    Raises:
        Problems: All that waits for it.
    """
    raise_problems(error.at(recipe.where(error.key)) for error in _waiting(recipe, monitor))


def _waiting(recipe: Recipe, monitor: str) -> Iterator[TLCompileError]:
    if not monitor.startswith("val/"):
        return
    names = [phase.name for phase in recipe.fine_tune.phases or ()]
    for index, phase in enumerate(recipe.phases()):
        during = f" of phase '{names[index]}'" if names else ""
        if names and phase.fine_tune.early_stop is not None:
            key: RecipeKey = ("fine_tune", "phases", index, "until")
            yield NothingMonitoredError(what=f"until{during}", monitor=monitor, key=key)
        if phase.fine_tune.schedule.name == "plateau":
            key = phase.written_at(("fine_tune", "schedule"))
            yield NothingMonitoredError(what=f"schedule{during}", monitor=monitor, key=key)


def _unknown(phases: Phases) -> Iterator[TLCompileError]:
    """Name groups that are no vertex, region or stage; once, though several phases have them."""
    seen: set[RecipeKey] = set()
    for recipe, model in phases:
        known = _regions(model)
        for name in recipe.fine_tune.groups:
            key = recipe.written_at(("fine_tune", "groups", name))
            if name not in known and name not in model.summary.stages and key not in seen:
                seen.add(key)
                words = (*known, *(STAGES if not model.summary.stages else model.summary.stages))
                yield UnknownVertexError(
                    model=model.summary.model, name=name, vertices=words, key=key
                )


def _regions(model: CompiledModel) -> dict[str, None]:
    """Return every name of a vertex or region, from the outside in."""
    parts = [row.name.split(".") for row in model.summary.vertices]
    names = (".".join(one[:depth]) for one in parts for depth in range(1, len(one) + 1))
    return dict.fromkeys(sorted(names, key=lambda name: name.count(".")))


def _frozen(recipe: Recipe, phases: Phases) -> Iterator[TLCompileError]:
    """Name groups that are frozen in every phase that they are for."""
    trains: dict[RecipeKey, bool] = {}
    for phase, model in phases:
        learning = {name for name, _ in model.trainable()}
        for name in phase.fine_tune.groups:
            held = _parameters_of(model, name)
            key = phase.written_at(("fine_tune", "groups", name))
            trains[key] = trains.get(key, False) or not held or not learning.isdisjoint(held)
    for key in (key for key, some in trains.items() if not some):
        own = recipe.fine_tune.phases if key[1] == "phases" else None
        phase_name = own[int(key[2])].name if own else None
        yield FrozenRateError(name=str(key[-1]), phase=phase_name, key=key)


def _parameters_of(model: CompiledModel, group: str) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    inside = [name for name in names if in_region(name, group)]
    if inside or group not in model.summary.stages:
        return inside
    stages = Stages(model)
    return [name for name in names if stages.of(name)[0] == group]


def _idle(phases: Phases) -> Iterator[TLCompileError]:
    """Name settings that no parameter takes in any phase."""
    wanted: dict[RecipeKey, None] = {}
    used: set[RecipeKey] = set()
    for recipe, model in phases:
        wanted |= dict.fromkeys(recipe.written_at(key) for key in _wanted(recipe))
        for _, rule in rules_of(recipe, model):
            used |= {recipe.written_at(key) for key in rule.used}
    for key in (key for key in wanted if key not in used):
        line = ".".join(map(str, key))
        yield NoEffectError(line=line, because=_WHY[str(key[-1])], instead=f"drop {line}", key=key)


def _beside_phases(recipe: Recipe) -> Iterator[TLCompileError]:
    """Name settings that every phase has for itself."""
    for key in filter(recipe.writes, recipe.idle_beside_phases()):
        line = ".".join(map(str, key))
        because = f"every phase has its own {key[-1]}"
        instead = f"drop {line}, or that of the phase that should take it"
        yield NoEffectError(line=line, because=because, instead=instead, key=key)


def _wanted(recipe: Recipe) -> Iterator[RecipeKey]:
    """Yield the keys of one phase that some parameter must take."""
    tune = recipe.fine_tune
    for name, group in tune.groups.items():
        yield from (("fine_tune", "groups", name, key) for key in written(group))
    for name, layer in recipe.add.items():
        yield from (("add", name, key) for key in written(layer))
    if tune.layer_decay != 1:
        yield ("fine_tune", "layer_decay")
    if tune.no_decay:
        yield ("fine_tune", "no_decay")
    if tune.bias_lr_factor != 1:
        yield ("fine_tune", "bias_lr_factor")
