"""What a member says that cannot go on: the words of a step of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlcompile.errors.run import NotFiniteLossError
from tlcompile.features.prefix import Rows
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.fused_block import Block, Computed
from tlcompile.training.not_finite import find_not_finite


@dataclass(frozen=True)
class Failed:
    """A member cannot go on; its step was not taken, and it has left."""

    name: str
    error: NotFiniteLossError


@dataclass(frozen=True)
class Batch:
    """What a step reads.

    Attributes:
        rows: At the boundary.
        targets: What the outputs are compared with.
        samples: Which ones they are.
        steps: Of an epoch.
    """

    rows: Rows
    targets: Tensor
    samples: Sequence[int]
    steps: int


def worded(
    model: CompiledModel,
    block: Block,
    place: int,
    found: Computed,
    batch: Batch,
    seed_dropout: Callable[[], None],
    name_of: Callable[[int], str],
) -> Failed:
    """Word what is not finite, as a step of this member alone would."""
    member = block.members[place]
    with _lent_to(model, block.weights_of(place)):
        for name, parameter in model.trainable():
            parameter.grad = found.grads[name][place].clone()
        model.train()
        seed_dropout()
        rows, targets = batch.rows, batch.targets
        what = find_not_finite(model, model.suffix, rows, targets, member.objective)
    factor = member.factor(member.state.step, batch.steps, member.values())
    error = NotFiniteLossError(
        phase=member.settings.name,
        epoch=len(member.state.history) + 1,
        step=member.state.step + 1,
        lr=max(rule.lr for rule in member.groups) * factor,
        first_layer=what.layer,
        what=what.what,
        samples=tuple(name_of(batch.samples[at]) for at in what.positions),
        count=len(batch.samples),
        gradient_norm=float(found.norms()[place]),
    )
    return Failed(member.name, error)


@contextlib.contextmanager
def _lent_to(model: CompiledModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the model have a member's weights for a while."""
    own = {name: parameter.detach().clone() for name, parameter in model.trainable()}
    try:
        _put(model, weights)
        yield
    finally:
        _put(model, own)
        for _, parameter in model.trainable():
            parameter.grad = None


@torch.no_grad()
def _put(model: CompiledModel, weights: Mapping[str, Tensor]) -> None:
    for name, parameter in model.trainable():
        parameter.copy_(weights[name])
