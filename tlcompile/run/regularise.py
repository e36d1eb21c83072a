"""From `fine_tune` to the hooks of a step: penalties, clipping, constraints, averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from tlcompile.errors.base import raise_problems
from tlcompile.errors.edits import NoEffectError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.regularise import Constraints
from tlcompile.recipe.schema import Recipe
from tlcompile.training.averages import Average, Ema, Swa
from tlcompile.training.constraints import Constraint, NonNegative, NormBetween, Rule, units_of
from tlcompile.training.gradients import ClipNorm, ClipValue, Hook, Renormalise
from tlcompile.training.penalties import Kind, Penalty, kinds_of

COEFFICIENTS: Mapping[str, tuple[str, Kind]] = {
    "l1": ("l1", "weight"),
    "l2": ("l2", "weight"),
    "l1_bias": ("l1", "bias"),
    "l2_bias": ("l2", "bias"),
}  # key of the recipe -> which penalty, of what


def before_step_of(recipe: Recipe, model: CompiledModel) -> tuple[Hook, ...]:
    """Return what happens to gradients before each step: penalties first, as parts of the loss.

    Args:
        recipe: Of one phase.
        model: That recipe, compiled.
    """
    tune = recipe.fine_tune
    hooks: list[Hook] = []
    of_penalty: dict[str, dict[str, float]] = {"l1": {}, "l2": {}}
    for key, (penalty, _) in COEFFICIENTS.items():
        of_penalty[penalty] |= coefficients(recipe, model, key)
    if any(of_penalty.values()):
        hooks.append(Penalty(**of_penalty))
    if tune.clip is not None and tune.clip.norm is not None:
        hooks.append(ClipNorm(tune.clip.norm, tune.clip.per))
    if tune.clip is not None and tune.clip.value is not None:
        hooks.append(ClipValue(tune.clip.value))
    if tune.renormalise is not None:
        hooks.append(Renormalise(tune.renormalise))
    return tuple(hooks)


def after_step_of(recipe: Recipe, model: CompiledModel) -> tuple[Hook, ...]:
    """Return what is made to hold after each step.

    Args:
        recipe: Of one phase.
        model: That recipe, compiled.
    """
    held = _held(model)
    return tuple(
        Constraint(rules_of(constraints), {name: units_of(*held[name]) for name in names})
        for constraints, names in _constrained(recipe, model)
    )


def average_of(recipe: Recipe, model: CompiledModel) -> Average | None:
    """Return the average of weights that a phase keeps; None: the weights themselves.

    Args:
        recipe: Of one phase.
        model: That recipe, compiled, with the weights that the phase begins with.
    """
    average = recipe.fine_tune.average
    if average is None:
        return None
    if average.swa is not None:
        return Swa(model, average.swa.start)
    assert average.ema is not None
    return Ema(model, average.ema, warmup=average.warmup)


def coefficients(recipe: Recipe, model: CompiledModel, key: str) -> dict[str, float]:
    """Return the factor of a penalty for each trainable parameter that has one; key: `l2_bias`."""
    _, wanted = COEFFICIENTS[key]
    found: dict[str, float] = {}
    for name, kind in trainable_kinds(model).items():
        if kind == wanted:
            own = _own(recipe, name, key)
            found[name] = getattr(recipe.fine_tune, key) if own is None else own
    return {name: value for name, value in found.items() if value}


def rules_of(constraints: Constraints) -> tuple[Rule, ...]:
    """Return the rules in the order in which they are applied: a sign, then a norm."""
    rules: list[Rule] = [NonNegative()] if constraints.non_negative else []
    if constraints.max_norm is not None:
        rules.append(NormBetween(0.0, constraints.max_norm))
    if constraints.unit_norm:
        rules.append(NormBetween(1.0, 1.0))
    bounds = constraints.min_max_norm
    if bounds is not None:
        rules.append(NormBetween(bounds.min, bounds.max, bounds.rate))
    return tuple(rules)


def _constrained(
    recipe: Recipe, model: CompiledModel
) -> Iterator[tuple[Constraints, tuple[str, ...]]]:
    """Yield constraints with the trainable parameters that they hold for."""
    found: dict[Constraints, list[str]] = {}
    for name, kind in trainable_kinds(model).items():
        own: Constraints | None = _own(recipe, name, "constraints")
        constraints = recipe.fine_tune.constraints if own is None else own
        if constraints and _hold_for(constraints, kind):
            found.setdefault(constraints, []).append(name)
    return ((constraints, tuple(names)) for constraints, names in found.items())


def _hold_for(constraints: Constraints, kind: Kind) -> bool:
    return kind == "weight" or (kind == "bias" and constraints.biases)


def trainable_kinds(model: CompiledModel) -> dict[str, Kind]:
    """Tell which trainable parameters are weights, and which biases."""
    kinds = kinds_of(dict(model.named_parameters()))
    return {name: kinds[name] for name, _ in model.trainable()}


def _own(recipe: Recipe, parameter: str, key: str) -> Any:
    """Return what the added layer of a parameter says itself; None: nothing, or it is the base's."""
    inside = [vertex for vertex in recipe.add if parameter.startswith(f"{vertex}.")]
    return getattr(recipe.add[max(inside, key=len)], key, None) if inside else None


def _held(model: CompiledModel) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Return each trainable parameter with the module that holds it."""
    return {
        name: (model.tree.get_submodule(name.rpartition(".")[0]), parameter)
        for name, parameter in model.trainable()
    }


def refuse_idle_regularisers(recipe: Recipe, models: Sequence[CompiledModel]) -> None:
    """Refuse lines that change nothing in any phase.

    Args:
        recipe: With all its phases.
        models: The recipe of each phase, compiled; they may live on meta.

    Raises:
        Problems: All such lines at once.
    """
    raise_problems(error.at(recipe.where(error.key)) for error in _idle(recipe, models))


def _idle(recipe: Recipe, models: Sequence[CompiledModel]) -> Iterator[NoEffectError]:
    tune = recipe.fine_tune
    learning = {name: kind for model in models for name, kind in trainable_kinds(model).items()}
    for key, (_, wanted) in COEFFICIENTS.items():
        inheriting = (n for n, k in learning.items() if k == wanted and not _says(recipe, n, key))
        if getattr(tune, key) and not any(inheriting):
            yield _nothing(key, wanted)
    constraints = tune.constraints
    if constraints and not any(
        _hold_for(constraints, kind) and not _says(recipe, name, "constraints")
        for name, kind in learning.items()
    ):
        yield _nothing("constraints", "weight")
    yield from _whole_batches(recipe)
    longest = max(phase.fine_tune.epochs for phase in recipe.phases())
    swa = tune.average.swa if tune.average is not None else None
    if swa is not None and swa.start > longest:
        yield NoEffectError(
            line=f"fine_tune.average.swa.start: {swa.start}",
            because=f"no phase has more than {longest} epochs, so nothing is averaged",
            instead=f"write start: {max(1, longest * 3 // 4)}",
            key=("fine_tune", "average", "swa", "start"),
        )


def _whole_batches(recipe: Recipe) -> Iterator[NoEffectError]:
    """Name a micro-batch that no batch is larger than: all of a batch is computed at once."""
    micro = recipe.run.micro_batch
    largest = max(phase.fine_tune.batch_size for phase in recipe.phases())
    if micro is not None and micro > largest:
        yield NoEffectError(
            line=f"run.micro_batch: {micro}",
            because=f"a batch has {largest} images, which are computed at once anyway",
            instead=f"write micro_batch: {max(1, largest // 2)}, or drop it",
            key=("run", "micro_batch"),
        )


def _says(recipe: Recipe, parameter: str, key: str) -> bool:
    return _own(recipe, parameter, key) is not None


def _nothing(key: str, kind: Kind) -> NoEffectError:
    return NoEffectError(
        line=f"fine_tune.{key}",
        because=f"no {kind} that trains takes it: norms have none, added layers may have their own",
        instead=f"drop fine_tune.{key}, or freeze less",
        key=("fine_tune", key),
    )
