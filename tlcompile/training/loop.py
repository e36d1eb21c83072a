"""The training loop: boundary rows in, an epoch's numbers out. Knows nothing of recipes or files.

Data order is a function of (seed, epoch), dropout of (seed, step): the number of threads, and what
ran before, never matter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tlcompile.data.samples import generator
from tlcompile.errors.run import NotFiniteLossError
from tlcompile.features.sources import Source
from tlcompile.graph.initialise import derived_seed
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.losses import Loss, predicted
from tlcompile.training.metrics import Score, improves
from tlcompile.training.optim import set_rate
from tlcompile.training.proof import FreezeProof


@dataclass(frozen=True)
class EpochRow:
    """One line of metrics.csv. Epochs count from 1; rates are per step; seconds are wall time."""

    epoch: int
    phase: str
    train: Score
    val: Score | None
    lr: float
    seconds: float

    def value(self, monitor: str) -> float:
        """Return a metric by its name, `val/accuracy`."""
        split, metric = monitor.split("/")
        score = self.train if split == "train" else self.val
        return math.nan if score is None else float(getattr(score, metric))


@dataclass(frozen=True)
class Stopping:
    """When to stop and what is best.

    Attributes:
        monitor: `val/accuracy`, `val/loss`, `train/accuracy` or `train/loss`.
        patience: Epochs without improvement before stopping; None: never.
        min_delta: Smallest change that counts.
    """

    monitor: str
    patience: int | None = None
    min_delta: float = 0.0


def train_epochs(
    model: CompiledModel,
    train: Source,
    val: Source | None,
    *,
    task: str | None,
    loss: Loss,
    judge: Loss | None = None,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float] | None,
    epochs: int,
    batch_size: int,
    seed: int,
    stopping: Stopping,
    proof: FreezeProof,
    clip_norm: float | None = None,
) -> Iterator[tuple[EpochRow, bool]]:
    """Train, epoch by epoch.

    Args:
        model: Its suffix is trained; its frozen part is never run here.
        train: Rows and labels to learn from.
        val: Rows and labels to judge by; None: nothing to judge by.
        task: classification or binary; None: nothing can be counted as correct.
        loss: Mean over a batch, to learn by.
        judge: Mean over a batch, to report of `val` (without label smoothing); None: `loss`.
        optimizer: Over the trainable parameters.
        rate: Learning rate of an epoch, counted from 0; None: the optimizer's own.
        epochs: At most so many.
        batch_size: Samples a step.
        seed: Of the order of samples and of dropout.
        stopping: When to stop and what is best.
        proof: Sees the gradients.
        clip_norm: Largest norm of all gradients together; None: as they are.

    Yields:
        Each epoch's row, and whether it is the best so far; the model is then as after it.

    Raises:
        NotFiniteLossError: A loss is not a finite number.
    """
    steps = _Steps(model, task, loss, optimizer, batch_size, seed, proof, clip_norm)
    judged = partial(evaluate, model, task=task, loss=judge or loss, batch_size=batch_size)
    best, waited = None, 0
    for epoch in range(epochs):
        start = time.perf_counter()
        if rate is not None:
            set_rate(optimizer, rate(epoch))
        lr = float(optimizer.param_groups[0]["lr"])
        trained = steps(train, epoch, lr)
        score = judged(val) if val is not None else None
        row = EpochRow(epoch + 1, "main", trained, score, lr, time.perf_counter() - start)
        value_now = row.value(stopping.monitor)
        is_best = improves(stopping.monitor, value_now, best, stopping.min_delta)
        best, waited = (value_now, 0) if is_best else (best, waited + 1)
        yield row, is_best
        if stopping.patience is not None and waited >= stopping.patience:
            return


@dataclass(frozen=True)
class _Steps:
    """The steps of an epoch."""

    model: CompiledModel
    task: str | None
    loss: Loss
    optimizer: torch.optim.Optimizer
    batch_size: int
    seed: int
    proof: FreezeProof
    clip_norm: float | None

    def __call__(self, source: Source, epoch: int, lr: float) -> Score:
        """Train on every row once; return the score of what was computed on the way."""
        count = count_of(source.labels)
        first = epoch * math.ceil(count / self.batch_size)
        self.model.train()
        tally = _Tally()
        order = torch.randperm(count, generator=generator(self.seed, "order", epoch))
        batches = source.batches(order.tolist(), self.batch_size, epoch)
        for step, (rows, labels) in enumerate(batches):
            _seed(derived_seed(self.seed, "step", first + step), rows[0].device)
            logits = self.model.suffix(*rows)
            value = self.loss(logits, labels)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            _refuse_infinite(self.model, value, epoch, step, lr)
            self.proof.see_gradients(self.model)
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_([p for _, p in self.model.trainable()], self.clip_norm)
            self.optimizer.step()
            tally.add(self.task, value, logits, labels)
        return tally.score()


def _seed(seed: int, device: torch.device) -> None:
    """Seed dropout. torch.manual_seed asks every kind of device: 1 ms a step, half of a head's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)


def evaluate(
    model: CompiledModel, source: Source, *, task: str | None, loss: Loss, batch_size: int
) -> Score:
    """Return loss and accuracy over a split, in eval mode."""
    tally = _Tally()
    for logits, labels in predict(model, source, batch_size=batch_size):
        tally.add(task, loss(logits, labels), logits, labels)
    return tally.score()


def predict(
    model: CompiledModel, source: Source, *, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (logits, labels) in the order of the samples, in eval mode, without gradients."""
    model.eval()
    for rows, labels in source.batches(range(count_of(source.labels)), batch_size, 0):
        with torch.no_grad():
            yield model.suffix(*rows), labels


def count_of(labels: Any) -> int:
    """Return the number of samples that labels are of: a tensor, or some that belong together."""
    return len(next(iter(pytree.tree_leaves(labels))))


class _Tally:
    """Sums over an epoch, on the device, so that no step waits for a number."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.correct: Tensor | None = None
        self.count = 0

    def add(self, task: str | None, loss: Tensor, logits: Any, labels: Any) -> None:
        # MPS has no float64.
        exact = loss.detach() if loss.device.type == "mps" else loss.detach().double()
        count = count_of(labels)
        self.loss = self.loss + exact * count
        if task is not None:
            right = (predicted(task, logits.detach()) == labels).sum()
            self.correct = right if self.correct is None else self.correct + right
        self.count += count

    def score(self) -> Score:
        correct = None if self.correct is None else int(self.correct)
        return Score(float(self.loss) / max(self.count, 1), correct, self.count)


def _refuse_infinite(model: CompiledModel, loss: Tensor, epoch: int, step: int, lr: float) -> None:
    if bool(torch.isfinite(loss)):
        return
    bad = [n for n, p in model.trainable() if not bool(torch.isfinite(p).all())]
    raise NotFiniteLossError(
        epoch=epoch + 1, step=step + 1, lr=lr, first_layer=bad[0] if bad else None
    )
