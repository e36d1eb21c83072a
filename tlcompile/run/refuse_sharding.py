"""Refuse `run.sharding: full` where there is nothing to cut it over, or beside what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.errors.graph import NotYetError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import device_type
from tlcompile.run.groups import groups_of
from tlcompile.training.ranks import Ranks, is_rank

KEY: Final = ("run", "sharding")
WHOLE_MATRICES: Final = ("adafactor", "muon")  # compute with a whole matrix, not number by number


def sharding_problems(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    """Yield why a phase cannot be cut over devices.

    Args:
        recipe: Of the phase.
        model: That recipe, compiled; it may live on meta.
    """
    if recipe.run.sharding == "none":
        return
    if recipe.run.devices == 1 and not is_rank():
        yield _one_device("run.devices: 1")
    if recipe.run.compile:
        yield _beside("run.compile", "drop run.compile")
    if recipe.run.micro_batch is not None:
        halve = "halve fine_tune.batch_size and double fine_tune.accumulate"
        yield _beside("run.micro_batch", f"drop run.micro_batch; {halve}")
    yield from _unfit_tensors(recipe, model)


def _unfit_tensors(recipe: Recipe, model: CompiledModel) -> Iterator[TLCompileError]:
    learning = {name for name, _ in model.trainable()}
    used = {group.optimizer for group in groups_of(recipe, model) if learning & {*group.parameters}}
    for name in WHOLE_MATRICES:
        if name in used:
            yield _beside(f"fine_tune.optimizer.name: {name}", "write name: adamw")
    single = [name for name, p in model.named_parameters() if not p.dim() and name in learning]
    if single:
        what = f"'{single[0]}', which is a single number without dimensions,"
        yield _beside(what, "drop run.sharding, or freeze it")


def _beside(what: str, instead: str) -> NotYetError:
    return NotYetError(what=f"{what} with run.sharding: full", instead=instead, key=KEY)


def refuse_idle_sharding(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse to cut what trains over one device, as `run.devices: auto` may find it.

    Raises:
        NoEffectError: There is but one.
    """
    if recipe.run.sharding == "full" and ranks.world == 1:
        raise _one_device(f"one {device_type(recipe)} device trains").at(recipe.where(KEY))


def _one_device(because: str) -> NoEffectError:
    instead = "run.devices=2 (or drop run.sharding: one device has all of the model)"
    return NoEffectError(line="run.sharding: full", because=because, instead=instead, key=KEY)
