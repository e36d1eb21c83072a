"""What trains at which rate, phase by phase, and what changes between two phases. For the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.phases import UNTIL_EPOCHS
from tlcompile.recipe.schedules import OneSchedule
from tlcompile.recipe.schema import Recipe
from tlcompile.run.groups import groups_of
from tlcompile.training.schedule import When, build_schedule

_STEPS = 100  # an epoch, where only the ends of a phase matter


@dataclass(frozen=True)
class RateRow:
    """What trains at one rate: one group of parameters in one phase.

    Attributes:
        phase: As in metrics.csv.
        group: Its name.
        trains: The outermost modules that its parameters belong to.
        tensors: How many.
        parameters: Numbers in them.
        optimizer: Its name.
        lr: At the start, behind a warm-up.
        lr_end: At the end, if no plateau comes.
        schedule: Its name.
        warmup: Share of the phase if below 1, else epochs; 0: none.
        weight_decay: Null where the optimizer has none.
        epochs: At most.
        batch_size: Images a step.
    """

    phase: str
    group: str
    trains: tuple[str, ...]
    tensors: int
    parameters: int
    optimizer: str
    lr: float
    lr_end: float
    schedule: str
    warmup: float
    weight_decay: float | None
    epochs: int
    batch_size: int


@dataclass(frozen=True)
class Edge:
    """What changes where a phase begins, against the phase before.

    Attributes:
        phase: That begins.
        thaws: The outermost modules of the tensors that begin to learn.
        thawed: How many tensors.
        freezes: The outermost modules of those that stop learning.
        frozen: How many tensors.
    """

    phase: str
    thaws: tuple[str, ...]
    thawed: int
    freezes: tuple[str, ...]
    frozen: int


def rates_of(recipe: Recipe, models: Sequence[CompiledModel]) -> tuple[RateRow, ...]:
    """Return a row for each group of each phase, as far as its model is given."""
    phases = zip(phase_names(recipe), recipe.phases(), models, strict=False)
    return tuple(row for phase in phases for row in _rows(*phase))


def edges_of(recipe: Recipe, models: Sequence[CompiledModel]) -> tuple[Edge, ...]:
    """Return what thaws and what freezes at each phase behind the first."""
    learning = [[name for name, _ in model.trainable()] for model in models]
    pairs = zip(phase_names(recipe)[1:], learning, learning[1:], strict=False)
    return tuple(_edge(name, before, after) for name, before, after in pairs)


def phase_names(recipe: Recipe) -> list[str]:
    """Return the names of the phases; `main` where there is but one."""
    return [phase.name for phase in recipe.fine_tune.phases or ()] or ["main"]


def _edge(phase: str, before: Sequence[str], after: Sequence[str]) -> Edge:
    thaws = [name for name in after if name not in before]
    freezes = [name for name in before if name not in after]
    return Edge(phase, _outer(thaws), len(thaws), _outer(freezes), len(freezes))


def _rows(name: str, recipe: Recipe, model: CompiledModel) -> Iterator[RateRow]:
    tune = recipe.fine_tune
    numel = {name: p.numel() for name, p in model.trainable()}
    first, last = _ends(tune.schedule, tune.epochs)
    for group in groups_of(recipe, model):
        yield RateRow(
            phase=name,
            group=group.name,
            trains=_outer(group.parameters),
            tensors=len(group.parameters),
            parameters=sum(numel[name] for name in group.parameters),
            optimizer=group.optimizer,
            lr=group.lr * first,
            lr_end=group.lr * last,
            schedule=tune.schedule.name,
            warmup=getattr(tune.schedule, "warmup", 0.0),
            weight_decay=group.options.get("weight_decay"),
            epochs=tune.epochs,
            batch_size=tune.batch_size,
        )


def _ends(schedule: OneSchedule, epochs: int) -> tuple[float, float]:
    """Return the factors of the first and the last step of a phase, without its warm-up."""
    factor = build_schedule(schedule.name, **{**schedule.options(), "warmup": 0.0})
    steps = _STEPS * epochs
    first, last = (factor(When(step, _STEPS, epochs)) for step in (0, steps - 1))
    return first, last


def _outer(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.split(".")[0] for name in names))


def rate_notes(recipe: Recipe) -> list[str]:
    """Say what a phase does not reach, and when it may end."""
    notes = []
    for phase, name in zip(recipe.phases(), phase_names(recipe), strict=True):
        tune = phase.fine_tune
        during = f"phase {name}: " if recipe.fine_tune.phases else ""
        notes += [f"{during}{text}" for text in _not_reached(tune.schedule, tune.epochs)]
        stop = tune.early_stop
        if stop is not None and stop.patience >= tune.epochs:
            word = "until plateau" if recipe.fine_tune.phases else "early_stop"
            notes.append(f"{during}{word} of {stop.patience} epochs: not reached in {tune.epochs}")
        if tune.optimizer.name == "rprop":
            notes.append(f"{during}rprop: lr is the first step's size, and no schedule changes it")
        if tune.layer_decay != 1:
            factor = f"times {tune.layer_decay:g} for each stage nearer the input"
            notes.append(f"{during}the rate of a layer is {factor}")
    for one in recipe.fine_tune.phases or ():
        if one.until is not None:
            most = f", {UNTIL_EPOCHS} at most" if one.epochs is None else ""
            notes.append(
                f"phase {one.name}: ends after {one.until.plateau} epochs without gain{most}"
            )
        if one.restore_best:
            notes.append(f"phase {one.name}: ends with the weights of its best epoch")
    return notes


def _not_reached(schedule: OneSchedule, epochs: int) -> Iterator[str]:
    """Name steps of a schedule that lie behind the last epoch."""
    match schedule.name:
        case "step" | "cosine_restarts":
            ends = [schedule.every]
        case "multistep":
            ends = list(schedule.at)
        case _:
            ends = []
    word = "restart" if schedule.name == "cosine_restarts" else "step"
    for end in ends:
        if end >= epochs:
            yield f"{word} at epoch {end}: not reached in {epochs}"
    if schedule.name == "plateau" and schedule.patience >= epochs:
        yield f"plateau of {schedule.patience} epochs: not reached in {epochs}"
    warmup = getattr(schedule, "warmup", 0.0)
    if warmup >= 1 and warmup > epochs:
        yield f"warm-up of {warmup:g} epochs: not over in {epochs}"
