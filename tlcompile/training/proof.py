"""Freeze proof, phase by phase: what is frozen has not moved by a byte, what trains was reached."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlcompile.errors.base import listed
from tlcompile.errors.training import FrozenMovedError, NoGradientError, NotOneGroupError
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.groups import Group
from tlcompile.training.sharding import whole


@dataclass
class FreezeProof:
    """Taken before a phase, asked after it; plain data in between, so that a resumed run has it.

    Attributes:
        digests: SHA-256 of every frozen tensor, as it was.
        start: SHA-256 of every trainable parameter, as it was.
        waiting: Trainable parameters that have had no finite gradient yet.
        phase: Which one it is of; empty where there is but one.
    """

    digests: dict[str, str]
    start: dict[str, str]
    waiting: set[str] = field(default_factory=set)
    phase: str = ""

    @classmethod
    def take(
        cls, model: CompiledModel, phase: str = "", frozen: dict[str, str] | None = None
    ) -> FreezeProof:
        """Write down what a model is before a phase.

        Args:
            model: As the phase freezes it.
            phase: Which one it is.
            frozen: What `frozen_digests` gave, where another proof has held since.
        """
        start = {name: _digest(p) for name, p in model.trainable()}
        return cls(dict(frozen or frozen_digests(model)), start, set(start), phase)

    def see_gradients(self, model: CompiledModel) -> None:
        """Strike out parameters that have a finite gradient now; free once all had one."""
        if not self.waiting:
            return
        for name, parameter in model.trainable():
            grad = parameter.grad if name in self.waiting else None
            if grad is not None and bool(torch.isfinite(whole(grad)).all()):
                self.waiting.discard(name)

    def unmoved(self, model: CompiledModel) -> list[str]:
        """Return trainable parameters that are as they were: a warning, not a failure.

        A healthy vision transformer has 25 of 152 after three small steps.
        """
        return [name for name, p in model.trainable() if _digest(p) == self.start[name]]

    def warn_of_unmoved(self, model: CompiledModel) -> str:
        """Return a line that names the trainable parameters that did not move; else ''."""
        dead = self.unmoved(model)
        return f"dead: {len(dead)} trainable tensors did not move: {listed(dead)}" if dead else ""

    def refuse_unreached(self) -> None:
        """Refuse parameters that had no gradient; after an epoch, not only after the last.

        Raises:
            NoGradientError: A trainable parameter never had a finite gradient.
        """
        if self.waiting:
            raise NoGradientError(names=tuple(sorted(self.waiting)), total=len(self.start))

    def check(self, model: CompiledModel, now: dict[str, str] | None = None) -> str:
        """Return the proof in one line.

        Args:
            model: The one it was taken of.
            now: What `frozen_digests` gives of it, where that is known.

        Raises:
            FrozenMovedError: A frozen tensor differs by at least one byte.
            NoGradientError: A trainable parameter never had a finite gradient.
        """
        now = frozen_digests(model) if now is None else now
        moved = [name for name, digest in self.digests.items() if now.get(name) != digest]
        if moved:
            raise FrozenMovedError(names=tuple(moved), total=len(self.digests))
        self.refuse_unreached()
        still = len(self.unmoved(model))
        line = (
            f"{len(self.digests)} frozen tensors byte-identical, "
            f"{len(self.start) - still} of {len(self.start)} trainable tensors moved"
        )
        return f"{self.phase}: {line}" if self.phase else line

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data; `from_data` reads it back."""
        return {
            "phase": self.phase,
            "frozen": self.digests,
            "start": self.start,
            "waiting": sorted(self.waiting),
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> FreezeProof:
        """Return the proof that a run was in the middle of."""
        waiting = set(data["waiting"])
        return cls(dict(data["frozen"]), dict(data["start"]), waiting, data["phase"])


def refuse_ungrouped(model: CompiledModel, groups: Iterable[Group]) -> None:
    """Refuse a partition in which a trainable parameter is not in exactly one group.

    Raises:
        NotOneGroupError: One is in none or in several, or one that is frozen is in a group.
    """
    counts = Counter(name for group in groups for name in group.parameters)
    wanted = {name for name, _ in model.trainable()}
    wrong = {name: counts[name] for name in sorted(wanted | set(counts))}
    wrong = {name: n for name, n in wrong.items() if n != (1 if name in wanted else 0)}
    if wrong:
        frozen = tuple(name for name in wrong if name not in wanted)
        absent = tuple(name for name in wrong if name in wanted and not counts[name])
        twice = tuple(name for name in wrong if name in wanted and counts[name])
        raise NotOneGroupError(absent=absent, twice=twice, frozen=frozen, total=len(wanted))


def frozen_digests(model: CompiledModel) -> dict[str, str]:
    """Return the SHA-256 of every frozen tensor."""
    return {
        name: _digest(tensor)
        for name, tensor in model.state_dict().items()
        if name in model.frozen.tensors
    }


def _digest(tensor: Tensor) -> str:
    # As bytes: numpy has no bfloat16.
    data = whole(tensor).detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(data.data).hexdigest()
