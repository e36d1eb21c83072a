"""Freeze proof: what is frozen has not moved by a byte, what trains got a gradient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tlcompile.errors.training import FrozenMovedError, NoGradientError
from tlcompile.model.compiled import CompiledModel


@dataclass
class FreezeProof:
    """Taken before training, asked after it.

    Attributes:
        digests: SHA-256 of every frozen tensor.
        start: The trainable parameters as they were.
        waiting: Trainable parameters that have had no finite gradient yet.
    """

    digests: dict[str, str]
    start: dict[str, Tensor]
    waiting: set[str] = field(default_factory=set)

    @classmethod
    def take(cls, model: CompiledModel) -> FreezeProof:
        """Write down what a model is before training."""
        start = {name: p.detach().clone() for name, p in model.trainable()}
        return cls(_digests(model), start, set(start))

    def see_gradients(self, model: CompiledModel) -> None:
        """Strike out parameters that have a finite gradient now; free once all had one."""
        if not self.waiting:
            return
        for name, parameter in model.trainable():
            grad = parameter.grad if name in self.waiting else None
            if grad is not None and bool(torch.isfinite(grad).all()):
                self.waiting.discard(name)

    def unmoved(self, model: CompiledModel) -> list[str]:
        """Return trainable parameters that are as they were: a warning, not a failure.

        A healthy vision transformer has 25 of 152 after three small steps.
        """
        return [n for n, p in model.trainable() if torch.equal(p.detach(), self.start[n])]

    def check(self, model: CompiledModel) -> str:
        """Return the proof in one line.

        Raises:
            FrozenMovedError: A frozen tensor differs by at least one byte.
            NoGradientError: A trainable parameter never had a finite gradient.
        """
        moved = [n for n, digest in _digests(model).items() if digest != self.digests[n]]
        if moved:
            raise FrozenMovedError(names=tuple(moved), total=len(self.digests))
        if self.waiting:
            raise NoGradientError(names=tuple(sorted(self.waiting)), total=len(self.start))
        still = len(self.unmoved(model))
        return (
            f"{len(self.digests)} frozen tensors byte-identical, "
            f"{len(self.start) - still} of {len(self.start)} trainable tensors moved"
        )


def _digests(model: CompiledModel) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in model.state_dict().items()
        if name in model.frozen.tensors
    }
