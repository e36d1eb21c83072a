"""The training loop: boundary rows in, an epoch's numbers out. Knows nothing of recipes or files.

A phase is trained as a generator of events. Between two of them its state is whole: who stops there
and later goes on from the state and the tensors gets what an uninterrupted run gets, to the bit. Data
order is a function of (seed, epoch), dropout of (seed, step): the number of threads, and what ran
before, never matter.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tlcompile.data.order import epoch_order
from tlcompile.errors.run import OutOfMemoryError
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Source, chunk_batches
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.averages import Average, estimate_statistics
from tlcompile.training.compute import Compute
from tlcompile.training.memory import is_out_of_memory
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Objective, Scoring
from tlcompile.training.proof import FreezeProof
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.schedule import Schedule, When
from tlcompile.training.sharding import gathered, is_sharded
from tlcompile.training.state import EpochRow, TrainingState
from tlcompile.training.step import Hook, Mix, Step, Stepper, part_of

RUNNING = "running"  # before the names of a running epoch's sums
MAX_HALVINGS = 3  # of what is computed at once, when memory runs out


@dataclass(frozen=True)
class Settings:
    """The numbers of a phase.

    Attributes:
        epochs: At most so many.
        batch_size: Samples of a rank in a batch.
        seed: Of the order of samples, of mixing and of dropout.
        monitor: What names the best epoch: `val/accuracy`.
        rising: Whether it is better when it is higher.
        name: The phase's.
        accumulate: Batches a step of the optimizer.
        micro_batch: Samples computed at once; None: a batch.
        patience: Epochs without improvement before stopping; None: never.
        min_delta: Smallest gain that patience counts; the best epoch is the best by any gain.
    """

    epochs: int
    batch_size: int
    seed: int
    monitor: str
    rising: bool
    name: str = "main"
    accumulate: int = 1
    micro_batch: int | None = None
    patience: int | None = None
    min_delta: float = 0.0


@dataclass(frozen=True)
class Stepped:
    """A step of the optimizer has been taken; `samples` of all ranks have been seen in it."""

    samples: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is over, and counted.

    Attributes:
        row: Its numbers.
        is_best: Of all epochs so far.
        is_phase_best: Of those of its phase.
        tensors: The weights that were judged, where they are the best of either; copies.
    """

    row: EpochRow
    is_best: bool
    is_phase_best: bool
    tensors: dict[str, Tensor] | None


class PhaseTrainer:
    """Trains one phase, event by event.

    Args:
        model: As the phase freezes it; its suffix is trained, its frozen part is never run here.
        train: Rows and targets to learn from.
        val: Rows and targets to judge by; None: nothing to judge by.
        objective: What is minimised and what is told.
        optimizers: Over the trainable parameters.
        schedule: Factor of all rates; None: the optimizers' own rates stay.
        settings: Numbers.
        proof: Sees the gradients.
        state: Where training stands; it is changed.
        order: Samples of an epoch, in order; None: all of them, shuffled.
        moving: Names of the tensors that any phase moves; None: those that this one does.
        before_step: Called after the gradients are there, in order.
        after_step: Called after each step, in order.
        average: Of the weights over steps or epochs; it is what is judged.
        mix: Changes each batch before it is learned from.
        ranks: Processes that train together.
        name_of: A sample's name, for errors.
        compute: Precision of the trainable part; None: fp32.
        between: Called for each batch that is judged; it may raise, and nothing is lost then.
    """

    def __init__(
        self,
        model: CompiledModel,
        train: Source,
        val: Source | None,
        *,
        objective: Objective,
        optimizers: Stepper,
        schedule: Schedule | None,
        settings: Settings,
        proof: FreezeProof,
        state: TrainingState | None = None,
        order: Callable[[int], Sequence[int]] | None = None,
        moving: frozenset[str] | None = None,
        before_step: Sequence[Hook] = (),
        after_step: Sequence[Hook] = (),
        average: Average | None = None,
        mix: Mix | None = None,
        ranks: Ranks = ALONE,
        name_of: Callable[[int], str] = str,
        compute: Compute | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.between = between
        self.model, self.train, self.val = model, train, val
        self.objective, self.optimizers, self.schedule = objective, optimizers, schedule
        self.settings, self.proof, self.state = settings, proof, state or TrainingState()
        self.average, self.ranks, self.compute = average, ranks, compute or Compute()
        count, seed = len(train.targets), settings.seed
        self.order = order or (lambda epoch: epoch_order(count, seed, epoch, None))
        trainable = dict(model.trainable())
        frozen = model.frozen.tensors
        self.moving = frozenset(model.state_dict().keys() - frozen) if moving is None else moving
        self.running = objective.running()
        self.scoring: Scoring | None = None  # of the last epoch
        self.step = Step(
            model, objective, optimizers, trainable, settings.seed, self.running, proof, ranks,
            tuple(before_step), tuple(after_step), mix, name_of, self.compute, settings.name,
        )  # fmt: skip

    def run(self) -> Iterator[Stepped | EpochDone]:
        """Train from where the state stands; yield each step and each epoch.

        Raises:
            NotFiniteLossError: A value is not a finite number; the step was not taken.
            OutOfMemoryError: A step does not fit, however few samples are computed at once.
        """
        while not self.is_over():
            yield from self._steps()
            yield self._finished_epoch()

    def is_over(self) -> bool:
        """Tell whether the phase is done."""
        state, settings = self.state, self.settings
        patience = settings.patience
        return state.epoch >= settings.epochs or (patience is not None and state.waited >= patience)

    def steps_an_epoch(self) -> int:
        """Return how many steps an epoch has."""
        return math.ceil(len(self._plan(len(self.state.history))) / self.settings.accumulate)

    def tensors(self) -> dict[str, Tensor]:
        """Return what belongs to the phase beside the model's own tensors; every rank has to ask."""
        parts: dict[str, _HasTensors | None] = self._parts()
        return {
            f"{part}/{name}": tensor
            for part, holder in parts.items()
            if holder is not None
            for name, tensor in gathered(holder.tensors()).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for part, holder in self._parts().items():
            if holder is not None:
                mine = {n.partition("/")[2]: t for n, t in tensors.items() if _in(part, n)}
                holder.load(mine)

    def _parts(self) -> dict[str, _HasTensors | None]:
        # Each rank has sums of its own; all else is the same on all of them.
        running = f"{RUNNING}@{self.ranks.rank}" if self.ranks.rank else RUNNING
        return {
            "optimizer": self.optimizers,
            running: self.running,
            "average": self.average,
            "scale": self.compute,
        }

    def sums(self) -> dict[str, Tensor]:
        """Return this rank's sums of the running epoch; of `tensors` they alone differ by rank."""
        running = next(name for name in self._parts() if name.startswith(RUNNING))
        return {f"{running}/{name}": t for name, t in self.running.tensors().items()}

    def _steps(self) -> Iterator[Stepped]:
        """Take the steps that are left of the running epoch."""
        state, accumulate = self.state, self.settings.accumulate
        epoch = len(state.history)
        plan = self._plan(epoch)
        self.model.train()
        if isinstance(self.step.forward, nn.Module):
            self.step.forward.train()
        steps = math.ceil(len(plan) / accumulate)
        batches: Iterator[Any] | None = None
        while state.step < steps:
            first = state.step * accumulate
            if batches is None:
                parts = [part_of(self.ranks, batch)[0] for batch in plan]
                batches = self.train.batches(parts, epoch, first)
            start = time.perf_counter()
            self._set_rates(steps)
            pieces = plan[first : first + accumulate]
            if not self._taken(batches, pieces):
                batches = None  # with less at once, from the same samples on
                continue
            if self.average is not None:
                self.ranks.same_buffers(self.step.buffers.values())
                self.average.update(self.model)
            state.step, state.steps = state.step + 1, state.steps + 1
            state.seconds += time.perf_counter() - start
            yield Stepped(sum(map(len, pieces)))

    def _plan(self, epoch: int) -> list[Sequence[int]]:
        """Return the batches of an epoch, those of all ranks together."""
        return chunk_batches(self.order(epoch), self.settings.batch_size * self.ranks.world)

    def _set_rates(self, steps_an_epoch: int, step: int | None = None) -> None:
        """Set the rates of a step of the running epoch; None: the next one."""
        if self.schedule is None:
            return
        state, settings = self.state, self.settings
        at = state.epoch * steps_an_epoch + (state.step if step is None else step)
        values = tuple(row.value(settings.monitor) for row in state.phase_rows())
        when = When(at, steps_an_epoch, settings.epochs, values)
        self.optimizers.set_factor(self.schedule(when))

    def _taken(self, batches: Iterator[Any], pieces: Sequence[Sequence[int]]) -> bool:
        """Take a step; False where memory ran out, and less will be computed at once.

        The frozen part may run out of it, too, where it computes what a batch reads.

        Raises:
            OutOfMemoryError: It has been halved often enough.
        """
        settings, state = self.settings, self.state
        whole = settings.micro_batch or settings.batch_size
        micro = math.ceil(whole / 2**state.halvings)
        try:
            self.step(list(islice(batches, len(pieces))), pieces, micro, state)
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Ranks would have to agree on less; one that runs out ends all of them.
            alone = self.ranks.world == 1
            if state.halvings == MAX_HALVINGS or micro == 1 or not alone or self.step.moving:
                device = next(self.model.parameters()).device
                raise OutOfMemoryError(
                    device=str(device),
                    micro_batch=micro,
                    halvings=state.halvings,
                    reason=str(error),
                ) from None
        self.step.undo()  # outside of the handler, which holds the step's tensors
        state.halvings += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _finished_epoch(self) -> EpochDone:
        """Judge the weights, and count the epoch."""
        state, settings = self.state, self.settings
        start = time.perf_counter()
        self._set_rates(self.steps_an_epoch(), 0)
        lr = next(iter(self.optimizers.rates().values()))
        self.ranks.same_buffers(self.step.buffers.values())
        if self.average is not None:
            self.average.update_epoch(self.model)
        with self._judged_weights():
            score = self._judge()
            seconds = state.seconds + time.perf_counter() - start
            self.running.load(self.ranks.sum(self.running.tensors()))
            trained = self.running.score()
            row = EpochRow(len(state.history) + 1, settings.name, trained, score, lr, seconds)
            is_best, is_phase_best = state.finish_epoch(
                row, settings.monitor, rising=settings.rising, min_delta=settings.min_delta
            )
            tensors = self._weights() if is_best or is_phase_best else None
        self.running = self.step.running = self.objective.running()
        return EpochDone(row, is_best, is_phase_best, tensors)

    @contextlib.contextmanager
    def _judged_weights(self) -> Iterator[None]:
        """Let the model have its average, where there is one, with statistics of its own."""
        with contextlib.ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.swapped(self.model))
                if self.average.needs_statistics:
                    estimate_statistics(self.model, self.model.suffix, self._all_rows())
            yield

    def _all_rows(self) -> Iterator[Rows]:
        """Yield the rows of the running epoch again."""
        epoch = len(self.state.history)
        return (rows for rows, _ in self.train.batches(self._plan(epoch), epoch))

    def _judge(self) -> Score | None:
        if self.val is None:
            return None
        with self.compute.autocast():
            self.scoring = scored(
                self.model,
                self.val,
                objective=self.objective,
                batch_size=self.settings.batch_size,
                ranks=self.ranks,
                between=self.between,
            )
        return self.scoring.score()

    def _weights(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        return gathered({n: state[n].detach().clone() for n in state if n in self.moving})


class _HasTensors(Protocol):
    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


def _in(part: str, name: str) -> bool:
    return name.partition("/")[0] == part


def scored(
    model: CompiledModel,
    source: Source,
    *,
    objective: Objective,
    batch_size: int,
    ranks: Ranks = ALONE,
    between: Callable[[], None] = lambda: None,
) -> Scoring:
    """Return the sums of every metric over a split, those of all ranks, in eval mode.

    Where there are fewer samples than ranks, each rank judges all of them: auroc and map gather the
    samples of every rank, which must have some; to each of them twice is the same value.
    """
    scoring = objective.scoring()
    ranks = ALONE if len(source.targets) < ranks.world else ranks
    for outputs, targets in predict(model, source, batch_size=batch_size, ranks=ranks):
        between()
        scoring.add(objective.judge(outputs, targets), outputs, targets)
    scoring.load(ranks.sum(scoring.tensors()))
    return scoring


def predict(
    model: CompiledModel, source: Source, *, batch_size: int, ranks: Ranks = ALONE
) -> Iterator[tuple[Any, Any]]:
    """Yield (outputs, targets) in the order of the samples, in eval mode, without gradients."""
    model.eval()
    batches = chunk_batches(range(ranks.rank, len(source.targets), ranks.world), batch_size)
    missing = ranks.largest(len(batches)) - len(batches) if is_sharded(model) else 0
    for rows, targets in source.batches(batches, 0):
        with torch.no_grad():
            yield model.suffix(*rows), targets
    for rows, _ in source.batches([range(1)] * missing, 0) if missing else ():  # others wait
        with torch.no_grad():
            model.suffix(*rows)
