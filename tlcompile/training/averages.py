"""Averages of weights over steps (EMA) or epochs (SWA), to judge by and to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from tlcompile.errors.resume import OtherStateError
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.sharding import is_cut, like, local

COUNT = "count"
VALUE = "value/"  # before the name of a tensor


class Average(ABC):
    """An average of what training moves: parameters that learn, and buffers of their layers.

    Frozen tensors are neither copied nor touched. Integers (batches counted) are not averaged but
    taken as they are.

    Attributes:
        names: Of the tensors that move.
        values: The averages by name; empty before the first.
        count: Updates so far: steps or epochs.
        needs_statistics: Whether averaged weights want batch statistics of their own.
    """

    needs_statistics: bool = False

    def __init__(self, model: CompiledModel) -> None:
        frozen = model.frozen.tensors
        self.names = tuple(name for name in model.state_dict() if name not in frozen)
        self.values: dict[str, Tensor] = {}
        self.count = 0
        self.device = next((p.device for _, p in model.trainable()), torch.device("cpu"))
        live = zip(self.names, self._live(model), strict=True)
        self._cut = {name: tensor for name, tensor in live if is_cut(tensor)}

    @abstractmethod
    def update(self, model: CompiledModel) -> None:
        """Take in the weights after a step."""

    @abstractmethod
    def update_epoch(self, model: CompiledModel) -> None:
        """Take in the weights at the end of an epoch."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all that an exact resume needs."""
        values = {f"{VALUE}{name}": tensor for name, tensor in self.values.items()}
        return {COUNT: torch.tensor(self.count), **values}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` returned.

        Raises:
            OtherStateError: They are of another model.
        """
        found = {name.removeprefix(VALUE): t for name, t in tensors.items() if name != COUNT}
        missing = set(self.names) - found.keys() if found or self.values else set()
        left_over = found.keys() - set(self.names)
        if COUNT not in tensors or missing or left_over:
            raise OtherStateError(
                what="average of weights",
                missing=tuple(sorted(missing)),
                left_over=tuple(sorted(left_over)),
            )
        self.count = int(tensors[COUNT])
        # Copies: what is given may be mapped from a file.
        self.values = {
            n: like(self._cut[n], t) if n in self._cut else t.to(self.device, copy=True)
            for n, t in found.items()
        }

    @contextmanager
    def swapped(self, model: CompiledModel) -> Iterator[None]:
        """Let the model have the averaged tensors; afterwards its own again, to the bit.

        Without an average yet, the model stays as it is. What is written to its moving tensors in
        between (statistics) is undone, too.
        """
        live = self._live(model)
        own = [tensor.detach().clone() for tensor in live]
        try:
            with torch.no_grad():
                for name, tensor in zip(self.names, live, strict=True):
                    if name in self.values:
                        tensor.copy_(self.values[name])
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(live, own, strict=True):
                    tensor.copy_(old)

    @torch.no_grad()
    def _take_in(self, model: CompiledModel, share: float) -> None:
        """Move the averages by this share of the way to what the model has now."""
        live = self._live(model)
        if not self.values:
            self.values = {n: t.detach().clone() for n, t in zip(self.names, live, strict=True)}
        averages, currents = [], []
        for name, tensor in zip(self.names, live, strict=True):
            average = self.values[name]
            if average.is_floating_point():
                averages.append(local(average))
                currents.append(local(tensor))
            else:
                average.copy_(tensor)
        torch._foreach_lerp_(averages, currents, share)
        self.count += 1

    def _live(self, model: CompiledModel) -> list[Tensor]:
        """Return the model's own tensors; the cost is that of what moves, whatever is frozen."""
        return [_tensor(model.tree, name) for name in self.names]


def _tensor(root: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    tensor: Tensor = getattr(root.get_submodule(owner), last)
    return tensor


@final
class Ema(Average):
    """Exponential moving average over the steps, from the weights before the first one.

    Args:
        decay: Share of the old average that each step keeps.
        warmup: Let the decay begin low, min(decay, (1 + steps) / (10 + steps)), so that the first
            weights are soon forgotten.
    """

    def __init__(self, model: CompiledModel, decay: float, *, warmup: bool = False) -> None:
        super().__init__(model)
        self.decay, self.warmup = decay, warmup
        live = zip(self.names, self._live(model), strict=True)
        self.values = {name: tensor.detach().clone() for name, tensor in live}

    def update(self, model: CompiledModel) -> None:
        """Take in the weights after a step."""
        self._take_in(model, 1 - self.decay_now())

    def update_epoch(self, model: CompiledModel) -> None:
        """Do nothing: steps count."""

    def decay_now(self) -> float:
        """Return the decay of the next update."""
        count = self.count + 1
        return min(self.decay, (1 + count) / (10 + count)) if self.warmup else self.decay


@final
class Swa(Average):
    """Equal average of the weights at the ends of epochs.

    Args:
        start: The first epoch that counts, from 1.
    """

    def __init__(self, model: CompiledModel, start: int) -> None:
        super().__init__(model)
        self.start = start
        self._moving_norms = any(name.endswith("running_mean") for name in self.names)

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Whether there is an average, of layers with batch statistics."""
        return self._moving_norms and bool(self.values)

    def update(self, model: CompiledModel) -> None:
        """Do nothing: epochs count."""

    def update_epoch(self, model: CompiledModel) -> None:
        """Take in the weights at the end of an epoch."""
        taken = self.count + 1 - self.start  # so many are in the average
        if taken < 0:
            self.count += 1
        else:
            self._take_in(model, 1 / (taken + 1))


def estimate_statistics(
    model: CompiledModel, forward: Callable[..., Any], batches: Iterable[tuple[Tensor, ...]]
) -> None:
    """Give the batch norms that learn the statistics of these rows under the weights of now.

    As torch.optim.swa_utils.update_bn, but frozen norms keep theirs, and dropout is off, so that
    nothing is random: each batch has the same share in the mean.

    Args:
        model: Its norms; all modes are as before afterwards.
        forward: `model.suffix`, or the same wrapped for several devices.
        batches: Rows.
    """
    modes = {module: module.training for module in model.modules()}
    model.train()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.training
        and module.track_running_stats
    ]
    momenta = {norm: norm.momentum for norm in norms}
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a mean with equal shares
            norm.train()
        with torch.no_grad():
            for rows in batches:
                forward(*rows)
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
