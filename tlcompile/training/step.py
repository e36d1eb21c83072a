"""One step of the optimizer: forward, backward, hooks, update. In pieces where memory is short."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tlcompile.data.samples import generator
from tlcompile.errors.run import NotFiniteLossError
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import chunk_batches
from tlcompile.graph.initialise import derived_seed
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.compute import Compute
from tlcompile.training.first_loss import chance_loss
from tlcompile.training.not_finite import find_not_finite, gradient_norm
from tlcompile.training.objective import Objective, Running
from tlcompile.training.proof import FreezeProof
from tlcompile.training.ranks import Ranks
from tlcompile.training.sharding import is_sharded
from tlcompile.training.state import TrainingState

Hook = Callable[[Mapping[str, nn.Parameter]], None]
Mix = Callable[[Rows, Any, torch.Generator], tuple[Rows, Any]]


class Stepper(Protocol):
    """What moves the parameters: training.optim.Optimizers, or what a Python caller gives."""

    def set_factor(self, factor: float) -> None:
        """Set every group's rate to its own, times a factor."""

    def zero_grad(self) -> None:
        """Forget all gradients."""

    @property
    def each(self) -> tuple[torch.optim.Optimizer, ...]:
        """Torch's own optimizers."""
        ...

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each group."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return all state, by name."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""


@dataclass
class _Piece:
    """What is computed at once: some samples of one batch.

    Attributes:
        number: Counts the pieces of a step; dropout is drawn by it.
        share: What its mean loss is multiplied by.
    """

    number: int
    samples: Sequence[int]
    rows: Rows
    targets: Any
    share: float
    loss: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    outputs: Any = None


@dataclass
class Step:
    """Takes steps. See PhaseTrainer for what it is given."""

    model: CompiledModel
    objective: Objective
    optimizers: Stepper
    parameters: Mapping[str, nn.Parameter]
    seed: int
    running: Running
    proof: FreezeProof
    ranks: Ranks
    before_step: tuple[Hook, ...]
    after_step: tuple[Hook, ...]
    mix: Mix | None
    name_of: Callable[[int], str]
    compute: Compute
    phase: str
    forward: Callable[..., Any] = field(init=False)
    moved: bool = field(init=False, default=True)  # the last step; fp16 skips one that overflows
    moving: bool = field(init=False, default=False)  # from here on a step cannot be undone
    buffers: dict[str, Tensor] = field(init=False)
    sharded: bool = field(init=False)  # its layers send and average themselves
    _before: dict[str, Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        frozen = self.model.frozen.tensors
        named = self.model.named_buffers()
        self.buffers = {name: buffer for name, buffer in named if name not in frozen}
        self.sharded = is_sharded(self.model)
        as_it_is = self.ranks.world == 1 or self.sharded
        suffix = self.model.suffix if as_it_is else self.ranks.wrap(self.model.suffix_module())
        self.forward = self.compute.forward(suffix)

    def __call__(
        self,
        batches: Sequence[tuple[Rows, Any]],
        samples: Sequence[Sequence[int]],
        micro_batch: int,
        state: TrainingState,
    ) -> None:
        """Take one step.

        Args:
            batches: Rows and targets of this rank's part of each batch.
            samples: The samples of each batch, those of all ranks.
            micro_batch: Samples to compute at once.
            state: Says which step it is; it gets the loss of the very first one.

        Raises:
            NotFiniteLossError: A loss or a gradient is not finite; nothing was moved.
        """
        self._before = {name: buffer.clone() for name, buffer in self.buffers.items()}
        pieces = list(self._pieces(batches, samples, micro_batch, state.steps))
        self.optimizers.zero_grad()
        for piece in pieces:
            self._learn(piece, state.steps, last=piece is pieces[-1])
        sound = self.compute.unscale(self.optimizers.each)
        self._refuse_not_finite(pieces, state, sound=sound)
        if state.first_loss is None:
            state.first_loss = float(
                sum(piece.loss * len(piece.samples) for piece in pieces)
            ) / sum(len(piece.samples) for piece in pieces)
            state.chance = chance_loss(self.objective, pieces[0].outputs, pieces[0].targets)
        self.moving = True
        for piece in pieces:
            if piece.share:  # a rank without samples of its own has borrowed some
                self.running.add(piece.loss, piece.outputs, piece.targets)
        self.proof.see_gradients(self.model)
        for hook in self.before_step if sound else ():
            hook(self.parameters)
        self.compute.step(self.optimizers.each, sound=sound)
        for hook in self.after_step if sound else ():
            hook(self.parameters)
        self.moved, self.moving, self._before = sound, False, {}

    def undo(self) -> None:
        """Make as if a step that was not finished had not begun; where none has, nothing changes."""
        self.optimizers.zero_grad()
        for name, before in self._before.items():
            self.buffers[name].copy_(before)

    def _pieces(
        self,
        batches: Sequence[tuple[Rows, Any]],
        samples: Sequence[Sequence[int]],
        micro_batch: int,
        step: int,
    ) -> Iterator[_Piece]:
        total = sum(map(len, samples))
        number = 0
        for place, ((rows, targets), of_all) in enumerate(zip(batches, samples, strict=True)):
            mine, counted = part_of(self.ranks, of_all)
            if self.mix is not None:
                random = generator(self.seed, "mix", step, place, self.ranks.rank)
                rows, targets = self.mix(rows, targets, random)
            rows = self.compute.rows(rows)
            # Ranks that share weights compute equally often: a part at once, whatever its size.
            cuts = chunk_batches(range(len(rows[0])), len(rows[0]) if self.sharded else micro_batch)
            for cut in cuts:
                own = slice(cut[0], cut[-1] + 1)
                whole = len(cuts) == 1
                part = (rows, targets) if whole else _sliced((rows, targets), own)
                share = self.ranks.share(len(cut), total) if counted else 0.0
                yield _Piece(number, mine[own], part[0], part[1], share)
                number += 1

    def _learn(self, piece: _Piece, step: int, *, last: bool) -> None:
        """Add the gradients of a piece."""
        self._seed(piece, step)
        module = self.forward
        sending = (
            self.ranks.averaging(module, last)
            if isinstance(module, nn.Module)
            else contextlib.nullcontext()
        )
        with sending:
            with self.compute.autocast():
                outputs = self.forward(*piece.rows)
                loss = self.objective.loss(outputs, piece.targets)
            piece.loss = loss.detach()
            scaled = loss if piece.share == 1 else loss * piece.share
            self.compute.scaled(scaled).backward()  # type: ignore[no-untyped-call]
        piece.outputs = pytree.tree_map_only(Tensor, Tensor.detach, outputs)

    def _seed(self, piece: _Piece, step: int) -> None:
        """Seed dropout. torch.manual_seed asks every kind of device: 1 ms a step, half of a head's."""
        place = () if not piece.number and self.ranks.is_first else (piece.number, self.ranks.rank)
        seed, device = derived_seed(self.seed, "step", step, *place), piece.rows[0].device
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        if device.type == "mps":
            torch.mps.manual_seed(seed)

    def _refuse_not_finite(
        self, pieces: Sequence[_Piece], state: TrainingState, *, sound: bool
    ) -> None:
        """Refuse a loss, or gradients, that are no number; fp16's overflow is not `sound`."""
        losses = [piece.loss for piece in pieces]
        excused = not sound and not self.compute.is_at_its_end()
        norm = torch.zeros(()) if excused else gradient_norm([*self.parameters.values()])
        finite = bool(torch.isfinite(sum(losses, start=norm.to(losses[0].device))))
        if excused:  # then the norm, which all ranks have, says nothing of another rank's loss
            finite = not self.ranks.largest(not finite)
        if finite:
            return
        bad = [p for p in pieces if not bool(torch.isfinite(p.loss))]
        elsewhere = self.ranks.largest(len(bad)) and not bad
        if elsewhere and not self.sharded:
            self.ranks.barrier()  # until the rank that computed it has worded it, and ends us all
        piece = (bad or list(pieces))[0]
        self._seed(piece, state.steps)
        with self.compute.autocast():
            found = find_not_finite(
                self.model, self.model.suffix, piece.rows, piece.targets, self.objective
            )
        if elsewhere:  # that rank's layers need ours until here
            self.ranks.barrier()
        self.undo()
        raise NotFiniteLossError(
            phase=self.phase,
            epoch=len(state.history) + 1,
            step=state.step + 1,
            lr=max(self.optimizers.rates().values()),
            first_layer=found.layer,
            what=found.what,
            samples=tuple(self.name_of(piece.samples[place]) for place in found.positions),
            count=len(piece.samples),
            gradient_norm=None if excused else float(norm),
        )


def part_of(ranks: Ranks, batch: Sequence[int]) -> tuple[Sequence[int], bool]:
    """Return a rank's part of a batch, and whether it counts: a rank without any borrows some."""
    mine = ranks.part(batch, 2 if len(batch) > 1 else 1)
    return (mine, True) if mine else (batch[:2], False)


def _sliced(tree: Any, own: slice) -> Any:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[own], tree)
