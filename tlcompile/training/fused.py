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

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tlcompile.data.order import epoch_order
from tlcompile.errors.run import NotFiniteLossError
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Source, chunk_batches
from tlcompile.graph.initialise import derived_seed
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.first_loss import chance_loss
from tlcompile.training.fused_block import Block, Computed, Member, blocks_of
from tlcompile.training.fused_linear import Ways, misfit
from tlcompile.training.loop import EpochDone, Stepped
from tlcompile.training.metrics import Score
from tlcompile.training.not_finite import find_not_finite
from tlcompile.training.objective import Scoring
from tlcompile.training.state import EpochRow


@dataclass(frozen=True)
class Failed:
    """A member cannot go on; its step was not taken, and it has left."""

    name: str
    error: NotFiniteLossError


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

    def run(self) -> Iterator[Stepped | Failed | FusedEpoch]:
        """Train from where the members stand, until the last one is over."""
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
        for name in self._left:
            self._left[name] = {k.removeprefix("model/"): t for k, t in own[name].items()}

    def _plan(self) -> list[Sequence[int]]:
        epoch = len(self.active()[0].state.history)
        return chunk_batches(self.order(epoch), self.batch_size)

    def _steps(self) -> Iterator[Stepped | Failed]:
        """Take the steps that are left of the running epoch."""
        state, plan = self.active()[0].state, self._plan()
        first, epoch, self.steps = state.step, len(state.history), len(plan)
        batches = self.train.batches(plan, epoch, first)
        for samples in plan[first:]:
            start = time.perf_counter()
            rows, targets = next(batches)
            steps = (self._step(block, rows, targets, samples) for block in self.blocks)
            failed = [one for step in steps for one in step]
            self.blocks = [block for block in self.blocks if block.members]
            goes_on = self._count_step(time.perf_counter() - start)
            yield from failed
            if not goes_on:
                return
            yield Stepped(len(samples))

    def _count_step(self, seconds: float) -> bool:
        """Count a step of every member; False: none is left."""
        active = self.active()
        for member in active:
            state = member.state
            state.step, state.steps = state.step + 1, state.steps + 1
            state.seconds += seconds / len(active)
        return bool(active)

    def _step(
        self, block: Block, rows: Rows, targets: Tensor, samples: Sequence[int]
    ) -> Iterator[Failed]:
        """Take one step of a block; members that cannot take it leave."""
        block.set_rates(self.steps)
        self._seed_dropout(block.members[0].state.steps, block.device)
        found = block.computed(rows, targets)
        bad = found.bad()
        for place in bad:
            error = self._worded(block, place, found, rows, targets, samples)
            yield Failed(block.members[place].name, error)
        if bad:
            self._leave(block, bad)
            found = found.without(bad)
        if not block.members:
            return
        _note_first_loss(block, found, targets)
        block.take(found, targets)

    def _seed_dropout(self, step: int, device: torch.device) -> None:
        """Seed dropout as a step of one model does."""
        seed = derived_seed(self.seed, "step", step)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _worded(
        self,
        block: Block,
        place: int,
        found: Computed,
        rows: Rows,
        targets: Tensor,
        samples: Sequence[int],
    ) -> NotFiniteLossError:
        """Word what is not finite, as a step of this member alone would."""
        member, model = block.members[place], self.model
        with self._lent_to(block.weights_of(place)):
            for name, parameter in model.trainable():
                parameter.grad = found.grads[name][place].clone()
            model.train()
            self._seed_dropout(member.state.steps, block.device)
            what = find_not_finite(model, model.suffix, rows, targets, member.objective)
        return NotFiniteLossError(
            phase=member.settings.name,
            epoch=len(member.state.history) + 1,
            step=member.state.step + 1,
            lr=max(rule.lr for rule in member.groups)
            * member.factor(member.state.step, self.steps, member.values()),
            first_layer=what.layer,
            what=what.what,
            samples=tuple(self.name_of(samples[at]) for at in what.positions),
            count=len(samples),
            gradient_norm=float(found.norms()[place]),
        )

    @contextlib.contextmanager
    def _lent_to(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Let the model have a member's weights for a while."""
        own = {name: parameter.detach().clone() for name, parameter in self.model.trainable()}
        try:
            self._put(weights)
            yield
        finally:
            self._put(own)
            for _, parameter in self.model.trainable():
                parameter.grad = None

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.trainable():
            parameter.copy_(weights[name])

    def _leave(self, block: Block, places: Sequence[int]) -> None:
        for place in places:
            self._left[block.members[place].name] = block.weights_of(place)
        block.keep([place for place in range(len(block.members)) if place not in places])

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
            self._leave(block, [p for p, member in enumerate(block.members) if member.is_over()])
        self.blocks = [block for block in self.blocks if block.members]
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
        sums = [block.judging() for block in self.blocks]
        every = range(len(self.val.targets))
        for rows, targets in self.val.batches(chunk_batches(every, self.batch_size), 0):
            self.between()
            for block, own in zip(self.blocks, sums, strict=True):
                block.judge(own, rows, targets)
        found: dict[str, Score] = {}
        for block, own in zip(self.blocks, sums, strict=True):
            for place, (member, score) in enumerate(zip(block.members, own.scores(), strict=True)):
                found[member.name] = score
                self._scoring[member.name] = partial(own.scoring, place)
        return found


def _note_first_loss(block: Block, found: Computed, targets: Tensor) -> None:
    """Give each member the loss of its very first step, and what a guess would have had."""
    for member, loss, outputs in zip(block.members, found.losses, found.outputs, strict=True):
        if member.state.first_loss is None:
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
