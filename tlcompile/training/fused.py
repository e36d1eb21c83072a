"""Members of a sweep that differ in numbers alone, trained as one model over the same rows.

How to call it:

    trainer = FusedTrainer(model, train, val, members, order=order)
    for event in trainer.run():            # Stepped, Failed and FusedEpoch, as PhaseTrainer's events
        if isinstance(event, FusedEpoch):
            for name, done in event.done.items():
                ...                        # an EpochDone: row, is_best, its weights where it is best
        elif isinstance(event, Failed):
            ...                            # event.name is out; the others go on

`model` is the compiled model of any member: what is frozen is the same in all of them, and it lends
itself to word errors. `members[k].state` is where a member stands, `trainer.weights(name)` what its
weights are now, or were when it left; `trainer.scoring(name)` the sums behind its last epoch. To go on
later, to the bit: keep `tensors()` and each member's `state.as_data()`; build the trainer with states
that were read back, without the members that failed, and `load()`.

Each member gets the weights, losses and scores that it gets alone; with `exact=False` its matrix
products are added up in another order, which changes the last bits, and these grow as training goes on:
tests hold weights to 1e-4 (relative) after 15 steps. Its epochs' seconds are its share of the time of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from tlcompile.data.order import epoch_order
from tlcompile.errors.base import one_line
from tlcompile.features.sources import Source, chunk_batches
from tlcompile.graph.initialise import derived_seed
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.first_loss import chance_loss
from tlcompile.training.fused_block import Block, Computed, Member, blocks_of
from tlcompile.training.fused_failed import Batch, Failed, worded
from tlcompile.training.fused_scoring import Judging
from tlcompile.training.fused_suffix import misfit
from tlcompile.training.fused_ways import Ways
from tlcompile.training.loop import EpochDone, Stepped
from tlcompile.training.memory import is_out_of_memory
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Scoring
from tlcompile.training.state import EpochRow

_Found = TypeVar("_Found")


class NoRoomError(RuntimeError):
    """Memory ran out on one member alone; no step is half taken, and each stands where it says."""


@dataclass(frozen=True)
class Halved:
    """Memory ran out; no step was half taken, and fewer members are computed at once.

    Attributes:
        members: So many, at most.
    """

    members: int


@dataclass(frozen=True)
class FusedEpoch:
    """An epoch of all members that still train is over, and counted.

    Attributes:
        done: What a `PhaseTrainer` would have said, of each member.
    """

    done: Mapping[str, EpochDone]


class FusedTrainer:
    """Trains a group of members, event by event.

    Args:
        model: Compiled, of any member; `misfit` says nothing of it.
        train: Rows and targets to learn from.
        val: Rows and targets to judge by; None: nothing to judge by.
        members: With one seed, one batch size, one task and one optimizer; all stand at the same step.
        order: Samples of an epoch, in order; None: all of them, shuffled.
        exact: Whether each member gets its own bits; else what is fastest.
        name_of: A sample's name, for errors.
        between: Called for each batch that is judged; it may raise, and nothing is lost then.

    Raises:
        ValueError: These do not train as one; sweep/fuse.py tells which do.
    """

    def __init__(
        self,
        model: CompiledModel,
        train: Source,
        val: Source | None,
        members: Sequence[Member],
        *,
        order: Callable[[int], Sequence[int]] | None = None,
        exact: bool = True,
        name_of: Callable[[int], str] = str,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        _refuse_unlike(model, members)
        self.model, self.train, self.val = model, train, val
        self.members = {member.name: member for member in members}
        self.name_of, self.between = name_of, between
        self.seed, self.batch_size = members[0].settings.seed, members[0].settings.batch_size
        count = len(train.targets)
        self.order = order or (lambda epoch: epoch_order(count, self.seed, epoch, None))
        active = [member for member in members if not member.is_over()]
        self.blocks = list(blocks_of(model, active, Ways(exact)))
        self._left = {m.name: dict(m.weights) for m in members if m.is_over()}
        self._scoring: dict[str, Callable[[], Scoring]] = {}
        self.steps = 0  # an epoch

    def run(self) -> Iterator[Stepped | Failed | Halved | FusedEpoch]:
        """Train from where the members stand, until the last one is over.

        Raises:
            NoRoomError: Memory ran out; each member can go on by itself from where it stands.
        """
        while self.blocks:
            yield from self._steps()
            if self.blocks:
                yield self._finished_epoch()

    def active(self) -> list[Member]:
        """Return the members that still train."""
        return [member for block in self.blocks for member in block.members]

    def weights(self, name: str) -> dict[str, Tensor]:
        """Return copies of a member's weights, as they are now or as it left."""
        for block in self.blocks:
            for place, member in enumerate(block.members):
                if member.name == name:
                    return block.weights_of(place)
        return {key: tensor.clone() for key, tensor in self._left[name].items()}

    def scoring(self, name: str) -> Scoring | None:
        """Return the sums behind a member's last validation."""
        return self._scoring[name]() if name in self._scoring else None

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a resume needs beside the members' states, by member and name."""
        found = {
            f"{member.name}/{key}": tensor
            for block in self.blocks
            for place, member in enumerate(block.members)
            for key, tensor in block.tensors(place).items()
        }
        for name, weights in self._left.items():
            found |= {f"{name}/model/{key}": tensor for key, tensor in weights.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        own: dict[str, dict[str, Tensor]] = {name: {} for name in self.members}
        for path, tensor in tensors.items():
            name = next((n for n in own if path.startswith(f"{n}/")), None)
            if name is not None:  # one that failed since is no member any more
                own[name][path.removeprefix(f"{name}/")] = tensor
        for block in self.blocks:
            block.load([own[member.name] for member in block.members])
        for name in self._left:  # a checkpoint of one alone has its optimizer, too
            weights = {k: t for k, t in own[name].items() if k.startswith("model/")}
            self._left[name] = {k.removeprefix("model/"): t for k, t in weights.items()}

    def _plan(self) -> list[Sequence[int]]:
        epoch = len(self.active()[0].state.history)
        return chunk_batches(self.order(epoch), self.batch_size)

    def _steps(self) -> Iterator[Stepped | Failed | Halved]:
        """Take the steps that are left of the running epoch."""
        state, plan = self.active()[0].state, self._plan()
        first, epoch, self.steps = state.step, len(state.history), len(plan)
        batches = self.train.batches(plan, epoch, first)
        for samples in plan[first:]:
            start = time.perf_counter()
            batch = Batch(*next(batches), samples, len(plan))
            events = self._stepped(batch)
            seconds, active = time.perf_counter() - start, self.active()
            for member in active:
                member.state.seconds += seconds / len(active)
            yield from events
            if not active:
                return
            yield Stepped(len(samples))

    def _stepped(self, batch: Batch) -> list[Failed | Halved]:
        """Take a step of every block; members that cannot take it leave."""
        events: list[Failed | Halved] = []
        place = 0
        while place < len(self.blocks):
            block = self.blocks[place]
            block.set_rates(batch.steps)
            self._seed_dropout(block)
            found = _with_room(block, partial(block.computed, batch.rows, batch.targets))
            if found is None:
                events.append(self._halve(place))
                continue
            bad = found.bad()
            for one in bad:
                seed = partial(self._seed_dropout, block)
                events.append(worded(self.model, block, one, found, batch, seed, self.name_of))
            self._leave(place, bad)
            if len(bad) == len(block.members):
                continue
            if bad:
                block, found = self.blocks[place], found.without(bad)
            _note_first_loss(block, found, batch.targets)
            block.take(found, batch.targets)
            for member in block.members:
                member.state.step, member.state.steps = (
                    member.state.step + 1,
                    member.state.steps + 1,
                )
            place += 1
        return events

    def _halve(self, place: int) -> Halved:
        """Let a block that has run out of memory be two."""
        self.blocks[place : place + 1] = self.blocks[place].halves()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return Halved(len(self.blocks[place].members))

    def _seed_dropout(self, block: Block) -> None:
        """Seed dropout as a step of one model does."""
        seed = derived_seed(self.seed, "step", block.members[0].state.steps)
        torch.default_generator.manual_seed(seed)
        if block.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _leave(self, place: int, gone: Sequence[int]) -> None:
        """Let members of a block go, and the block with its last one."""
        if not gone:
            return
        block = self.blocks[place]
        for one in gone:
            self._left[block.members[one].name] = block.weights_of(one)
        left = [one for one in range(len(block.members)) if one not in gone]
        self.blocks[place : place + 1] = [block.part(left)] if left else []

    def _finished_epoch(self) -> FusedEpoch:
        """Judge every member's weights, and count the epoch."""
        start = time.perf_counter()
        judged = self._judge()
        share = (time.perf_counter() - start) / len(self.active())
        done: dict[str, EpochDone] = {}
        for block in self.blocks:
            trained = block.sums.scores()
            for place, member in enumerate(block.members):
                member.state.seconds += share
                row = self._row(member, trained[place], judged.get(member.name))
                done[member.name] = _counted(member, row, block, place)
            block.begin_epoch()
        for place in reversed(range(len(self.blocks))):
            members = enumerate(self.blocks[place].members)
            self._leave(place, [one for one, member in members if member.is_over()])
        return FusedEpoch(done)

    def _row(self, member: Member, trained: Score, judged: Score | None) -> EpochRow:
        state = member.state
        lr = member.groups[0].lr * member.factor(0, self.steps, member.values())
        number, name = len(state.history) + 1, member.settings.name
        return EpochRow(number, name, trained, judged, lr, state.seconds)

    def _judge(self) -> dict[str, Score]:
        """Return each member's score over the validation samples."""
        if self.val is None:
            return {}
        sums = self._judged(self.val)
        while isinstance(sums, int):  # the block that has run out of memory
            self._halve(sums)
            sums = self._judged(self.val)
        found: dict[str, Score] = {}
        for block, own in zip(self.blocks, sums, strict=True):
            for place, (member, score) in enumerate(zip(block.members, own.scores(), strict=True)):
                found[member.name] = score
                self._scoring[member.name] = partial(own.scoring, place)
        return found

    def _judged(self, val: Source) -> list[Judging] | int:
        """Return each block's sums over the validation samples, or which block has no room."""
        sums = [block.judging() for block in self.blocks]
        every = range(len(val.targets))
        for rows, targets in val.batches(chunk_batches(every, self.batch_size), 0):
            self.between()
            for place, (block, own) in enumerate(zip(self.blocks, sums, strict=True)):
                if _with_room(block, partial(block.judge, own, rows, targets)) is None:
                    return place
        return sums


def _with_room(block: Block, compute: Callable[[], _Found]) -> _Found | None:
    """Compute something of a block that moves nothing; None: memory ran out.

    Raises:
        NoRoomError: The block has but one member.
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(block.members) == 1:
            raise NoRoomError(one_line(error)) from None
    return None


def _note_first_loss(block: Block, found: Computed, targets: Tensor) -> None:
    """Give each member the loss of its very first step, and what a guess would have had."""
    if block.members[0].state.first_loss is not None:  # all stand at the same step
        return
    for member, loss, outputs in zip(block.members, found.losses, found.outputs, strict=True):
        member.state.first_loss = float(loss * len(targets)) / len(targets)
        member.state.chance = chance_loss(member.objective, outputs, targets)


def _counted(member: Member, row: EpochRow, block: Block, place: int) -> EpochDone:
    """Count an epoch of a member."""
    settings = member.settings
    is_best, is_phase_best = member.state.finish_epoch(
        row, settings.monitor, rising=settings.rising, min_delta=settings.min_delta
    )
    tensors = block.weights_of(place) if is_best or is_phase_best else None
    return EpochDone(row, is_best, is_phase_best, tensors)


def _refuse_unlike(model: CompiledModel, members: Sequence[Member]) -> None:
    """Refuse members that do not train as one; the mistake is the caller's."""
    reason = misfit(model)
    alike = {
        (
            m.settings.seed,
            m.settings.batch_size,
            m.settings.accumulate,
            len(m.state.history),
            m.state.step,
        )
        for m in members
        if not m.is_over()
    }
    if len(alike) > 1:
        reason = f"seed, batch size, accumulate, epoch or step differ: {sorted(alike)}"
    if len({member.name for member in members}) < len(members) or not members:
        reason = "members need names of their own"
    if any(set(m.objective.goals) != {""} or not m.objective.goals[""].counts for m in members):
        reason = "only classification with one output trains as one"
    if reason:
        raise ValueError(reason)
