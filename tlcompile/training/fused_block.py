"""A block: members whose weights fit into a processor's cache together, and take steps as one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tlcompile.features.graphed import Graphed
from tlcompile.features.prefix import Rows
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.fused_loss import BlockLoss, smoothing_of
from tlcompile.training.fused_optim import member_optimizer, picked
from tlcompile.training.fused_scoring import Judging, Sums, judging
from tlcompile.training.fused_suffix import (
    batched_suffix,
    bytes_a_sample,
    draws,
    outputs_of,
    weights_of,
)
from tlcompile.training.fused_ways import Ways
from tlcompile.training.groups import Group
from tlcompile.training.loop import Settings
from tlcompile.training.objective import Objective
from tlcompile.training.schedule import Schedule, When
from tlcompile.training.state import TrainingState

# Weights of a block on a CPU: each step reads them, their gradients and the optimizer's state again.
BLOCK_WEIGHTS = 3 * 2**18
BLOCK_BYTES = 2**26  # of what a block on a CPU computes for a batch, and keeps for its gradients


@dataclass(frozen=True)
class Member:
    """A model that trains with others.

    Attributes:
        name: Its own among the members.
        weights: Of what trains, where it begins, by parameter.
        groups: How each parameter learns; the optimizers of members are one, their numbers are not.
        settings: Its numbers; seed and batch size are those of all members.
        objective: What it minimises; its task and classes are those of all members.
        schedule: Factor of its rates; None: they stay.
        state: Where it stands; it is changed.
    """

    name: str
    weights: Mapping[str, Tensor]
    groups: Sequence[Group]
    settings: Settings
    objective: Objective
    schedule: Schedule | None = None
    state: TrainingState = field(default_factory=TrainingState)

    def is_over(self) -> bool:
        """Tell whether it is done."""
        state, settings = self.state, self.settings
        stops = settings.patience is not None and state.waited >= settings.patience
        return state.epoch >= settings.epochs or stops

    def values(self) -> tuple[float, ...]:
        """Return the monitored value of each finished epoch."""
        return tuple(row.value(self.settings.monitor) for row in self.state.phase_rows())

    def factor(self, step: int, steps_an_epoch: int, values: tuple[float, ...]) -> float:
        """Return the factor of its rates at a step of the running epoch."""
        if self.schedule is None:
            return 1.0
        at = self.state.epoch * steps_an_epoch + step
        return self.schedule(When(at, steps_an_epoch, self.settings.epochs, values))

    def rule(self, parameter: str) -> Group:
        """Return the group that a parameter is in."""
        return next(group for group in self.groups if parameter in group.parameters)


class Block:
    """Some members as one model.

    Attributes:
        members: In the order of the rows.
        weights: (K, ...) of each parameter.
        sums: Of the running epoch.
    """

    def __init__(self, model: CompiledModel, members: Sequence[Member], ways: Ways) -> None:
        self.model, self.members, self.ways = model, list(members), ways
        self.suffix = batched_suffix(model, len(members), ways)
        self.weights = weights_of(self.suffix)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(torch.stack([member.weights[name] for member in members]))
        self.optimizers = {
            name: member_optimizer([member.rule(name) for member in members], weight)
            for name, weight in self.weights.items()
        }
        self.device = next(iter(self.weights.values())).device
        self._begin()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the sums of the epoch before."""
        self.sums = Sums(len(self.members), self.device)
        self._values: list[tuple[float, ...]] = []  # the rates of an epoch follow them

    def _begin(self) -> None:
        """Make ready for steps with the members that there are."""
        self.loss = BlockLoss([member.objective for member in self.members], self.ways)
        # A graph would draw the same dropout again and again.
        captured = self.device.type == "cuda" and not draws(self.suffix)
        self._run: Callable[..., Rows] = self._gradients
        if captured:
            self._run = Graphed(self._gradients, lambda _line: None)

    def _gradients(self, *batch: Tensor) -> Rows:
        """Return losses, outputs and gradients of a batch: its rows, and last its targets."""
        outputs = outputs_of(self.suffix, batch[:-1], len(self.members))
        losses, grad = self.loss.learn(outputs, batch[-1])
        grads = torch.autograd.grad(outputs, list(self.weights.values()), grad)
        return losses, outputs.detach(), *grads

    def computed(self, rows: Rows, targets: Tensor) -> Computed:
        """Compute what a step needs, and move nothing."""
        self._set_mode(training=True)
        losses, outputs, *grads = self._run(*rows, targets)
        return Computed(losses, outputs, dict(zip(self.weights, grads, strict=True)))

    def _set_mode(self, *, training: bool) -> None:
        """Set the mode of the suffix; where it has it, that takes as long as a small product."""
        if self.suffix.training is not training:
            self.suffix.train(training)

    def take(self, found: Computed, targets: Tensor) -> None:
        """Count a batch, and move every member's weights."""
        correct = self.loss.correct(found.outputs, targets)
        self.sums.add(found.losses, correct, len(targets))
        for name, grad in found.grads.items():
            self.optimizers[name].step(grad)

    def set_rates(self, steps_an_epoch: int) -> None:
        """Set every member's rates to those of its next step."""
        if not self._values:
            self._values = [member.values() for member in self.members]
        factors = [
            member.factor(member.state.step, steps_an_epoch, values)
            for member, values in zip(self.members, self._values, strict=True)
        ]
        for optimizer in self.optimizers.values():
            optimizer.set_factors(factors)

    @torch.no_grad()
    def judge(self, sums: Judging, rows: Rows, targets: Tensor) -> Judging:
        """Add a batch to sums over a split, in eval mode."""
        self._set_mode(training=False)
        outputs = outputs_of(self.suffix, rows, len(self.members))
        sums.add(self.loss.judge(outputs, targets), outputs, targets)
        return sums

    def judging(self) -> Judging:
        """Return empty sums over a split."""
        return judging([member.objective for member in self.members], self.device)

    def weights_of(self, place: int) -> dict[str, Tensor]:
        """Return copies of one member's weights."""
        return {name: weight[place].detach().clone() for name, weight in self.weights.items()}

    def part(self, places: Sequence[int]) -> Block:
        """Return some members as a block of their own; those of a range share this one's memory."""
        part = copy.copy(self)
        part.members = [self.members[place] for place in places]
        part.suffix = batched_suffix(self.model, len(places), self.ways)
        part.weights = weights_of(part.suffix)
        part.optimizers, part.sums = {}, copy.copy(self.sums)
        part.sums.keep(places)
        for name, weight in part.weights.items():
            weight.data = picked(self.weights[name].data, places)
            part.optimizers[name] = copy.copy(self.optimizers[name])
            part.optimizers[name].keep(places, weight)
        part._values = []
        part._begin()
        return part

    def halves(self) -> list[Block]:
        """Return its members as two blocks, which share its memory: each computes half as much."""
        count = len(self.members)
        middle = math.ceil(count / 2)
        return [self.part(range(middle)), self.part(range(middle, count))]

    def tensors(self, place: int) -> dict[str, Tensor]:
        """Return one member's weights, and its state as a `PhaseTrainer` of its own would save it."""
        found = {f"model/{name}": t for name, t in self.weights_of(place).items()}
        for name, optimizer in self.optimizers.items():
            found |= {f"optimizer/{name}/{k}": t for k, t in optimizer.tensors(place).items()}
        found |= {f"running/{k}": t for k, t in self.sums.tensors(place).items()}
        return found

    def load(self, found: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over what `tensors` gave, of each member."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(torch.stack([one[f"model/{name}"] for one in found]))
                starts = f"optimizer/{name}/"
                self.optimizers[name].load([_under(starts, one) for one in found])
        self.sums.load([_under("running/", one) for one in found])


@dataclass(frozen=True)
class Computed:
    """What a block has computed of a batch.

    Attributes:
        losses: (K,) mean loss of each member.
        outputs: (K, N, C).
        grads: (K, ...) of each parameter.
    """

    losses: Tensor
    outputs: Tensor
    grads: Mapping[str, Tensor]

    def norms(self) -> Tensor:
        """Return the norm of each member's gradients together.

        Shape:
            out: (K,)
        """
        each = [grad.flatten(1).norm(dim=1) for grad in self.grads.values()]
        found: Tensor = torch.stack(each).norm(dim=0)
        return found

    def bad(self) -> list[int]:
        """Return the members whose loss or gradient is not finite. Waits for the device."""
        sound = torch.isfinite(self.losses + self.norms())
        return [] if bool(sound.all()) else (~sound).nonzero().flatten().tolist()

    def without(self, bad: Sequence[int]) -> Computed:
        """Return what is left without some members."""
        places = [place for place in range(len(self.losses)) if place not in bad]
        grads = {name: grad[places] for name, grad in self.grads.items()}
        return Computed(self.losses[places], self.outputs[places], grads)


def blocks_of(model: CompiledModel, members: Sequence[Member], ways: Ways) -> Iterator[Block]:
    """Put members into blocks; those of one have one loss, as it is batched.

    Args:
        model: Of any member; it stays as it is.
        members: Those that train.
        ways: Chooses how to compute.
    """
    alike: dict[float | None, list[Member]] = {}
    for member in members:
        alike.setdefault(smoothing_of(member.objective.goals[""].loss), []).append(member)
    on_cpu = next(model.parameters()).device.type == "cpu"
    weights = sum(p.numel() for _, p in model.trainable())
    batch = members[0].settings.batch_size * bytes_a_sample(model) if members else 1
    fit = max(1, min(BLOCK_WEIGHTS // weights, BLOCK_BYTES // batch)) if on_cpu else len(members)
    for same in alike.values():
        size = math.ceil(len(same) / math.ceil(len(same) / fit))  # blocks of one size
        for first in range(0, len(same), size):
            yield Block(model, same[first : first + size], ways)


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
