"""Sums over an epoch, on the device: no step waits for a number. Metrics are torchmetrics'."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tlcompile.training.goal import Goal
from tlcompile.training.metrics import Score

HELD = (
    2**18
)  # logits that wait for the metrics, which take as long for ten samples as for a thousand


def count_of(targets: Any) -> int:
    """Return the number of samples that targets are of: a tensor, or some that belong together."""
    return len(next(iter(pytree.tree_leaves(targets))))


class Running:
    """Loss and metrics over the samples that are added.

    Args:
        goals: Of each output; "": the only one. None: a loss of the user's own.
        full: All metrics of each goal, and the loss of each output; else the main metrics alone.
        device: Where the sums begin; they follow what is added.
    """

    def __init__(
        self, goals: Mapping[str, Goal], *, full: bool, device: torch.device | str = "cpu"
    ) -> None:
        self.loss = torch.zeros((), dtype=_exact(torch.device(device)), device=device)
        self.count = 0
        self.parts = {name: _Part(goal, full, device) for name, goal in goals.items()}

    def add(self, loss: Tensor, outputs: Any, targets: Any) -> None:
        """Add a batch.

        Args:
            loss: Its mean loss.
            outputs: What the model returned.
            targets: What they are compared with.
        """
        count = count_of(targets)
        # MPS has no float64.
        self.loss = self.loss.to(loss.device) + loss.detach().to(_exact(loss.device)) * count
        self.count += count
        for name, part in self.parts.items():
            part.add(outputs[name] if name else outputs, targets[name] if name else targets)

    def score(self) -> Score:
        """Return the score so far. Waits for the device.

        Where torch.distributed is initialised, metrics that keep every sample (auroc, map) gather
        them: every rank has to ask.
        """
        loss = float(self.loss) / max(self.count, 1)
        if not self.parts:
            return Score(loss, None, self.count)
        parts = {name: part.score(loss, self.count) for name, part in self.parts.items()}
        return parts[""] if "" in parts else Score(loss, None, self.count, {}, parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name. Those of several ranks add up, and load() takes them back."""
        count = torch.tensor(self.count, device=self.loss.device)
        found = {"loss": self.loss, "count": count}
        for name, part in self.parts.items():
            found |= {f"{name}/{key}".lstrip("/"): t for key, t in part.tensors().items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from these sums instead of one's own."""
        self.loss, self.count = tensors["loss"], int(tensors["count"])
        for name, part in self.parts.items():
            start = f"{name}/" if name else ""
            part.load({k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)})

    def confusion(self) -> dict[str, Tensor]:
        """Return how often each class (row) was taken for each (column), of each output with classes.

        Shape:
            out: (C, C) int64, on the CPU
        """
        found = {name: part.confusion() for name, part in self.parts.items()}
        return {name: matrix for name, matrix in found.items() if matrix is not None}

    def hits(self) -> dict[str, Tensor]:
        """Return of each class, or label, how many are of it, of these found, and taken for it.

        Shape:
            out: (3, C) int64, on the CPU
        """
        found = {name: part.hits() for name, part in self.parts.items()}
        return {name: counts for name, counts in found.items() if counts is not None}


class _Part:
    """The metrics of one output."""

    def __init__(self, goal: Goal, full: bool, device: torch.device | str) -> None:
        self.goal, self.full, self.device = goal, full, torch.device(device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device) if goal.counts else None
        self.loss = torch.zeros((), dtype=_exact(self.device), device=device)
        self.metrics: dict[str, Any] = {
            name: goal.metric(name).to(self.device) for name in goal.measured(full=full)
        }
        self._held: list[tuple[Tensor, Tensor]] = []
        self._size = 0

    def add(self, outputs: Any, targets: Tensor) -> None:
        goal = self.goal
        logits, targets = goal.logits(outputs).detach(), goal.hard(targets)
        if self.full and goal.named:
            loss = goal.judge(logits, targets).detach()
            self.loss = self.loss.to(loss.device) + loss.to(_exact(loss.device)) * len(targets)
        if self._size or logits.numel() < HELD:
            logits = logits.clone()  # a compiled model may write its next outputs there
        self._held.append((logits, targets))
        self._size += logits.numel()
        if self._size >= HELD:
            self._flush()

    def _flush(self) -> None:
        """Let the metrics see what waits."""
        if not self._held:
            return
        logits = torch.cat([one for one, _ in self._held])
        targets = torch.cat([other for _, other in self._held])
        self._held, self._size = [], 0
        if self.correct is not None:
            right = (self.goal.predicted(logits) == targets).sum()
            self.correct = self.correct.to(right.device) + right
        for name, metric in self.metrics.items():
            metric.to(logits.device).update(*self.goal.seen_by(name, logits, targets))

    def score(self, loss: float, count: int) -> Score:
        self._flush()
        if self.goal.named:
            loss = float(self.loss) / max(count, 1) if self.full else float("nan")
        values = {name: self._value(name) for name in self.metrics if name != "confusion"}
        if "confusion" in self.metrics and self.goal.task == "segmentation":
            matrix = self.metrics["confusion"].compute()
            values["accuracy"] = float(matrix.diag().sum() / matrix.sum())
        correct = None if self.correct is None else int(self.correct)
        return Score(loss, correct, count, values)

    def _value(self, name: str) -> float:
        metric = self.metrics[name]
        with warnings.catch_warnings():  # of classes that no sample has
            warnings.simplefilter("ignore")
            if not metric.update_called:
                return float("nan")
            if name == "auroc" and not self._both_classes():
                return float("nan")  # torchmetrics says 0
            if name == "r2" and int(metric.total) < 2:
                return float("nan")  # torchmetrics raises
            return float(metric.compute())

    def _both_classes(self) -> bool:
        return bool((self.metrics["confusion"].compute().sum(1) > 0).all())

    def tensors(self) -> dict[str, Tensor]:
        self._flush()
        found = {"own_loss": self.loss} if self.full and self.goal.named else {}
        if self.correct is not None:
            found["correct"] = self.correct
        for name, metric in self.metrics.items():
            states = metric.metric_state.items()
            found |= {f"{name}/{key}": t for key, t in states if isinstance(t, Tensor)}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self._held, self._size = [], 0
        self.loss = tensors.get("own_loss", self.loss)
        self.correct = tensors.get("correct", self.correct)
        for name, metric in self.metrics.items():
            for key in [key for key in metric.metric_state if f"{name}/{key}" in tensors]:
                setattr(metric, key, tensors[f"{name}/{key}"])
                metric._update_count = max(metric._update_count, 1)
                metric._computed = None  # else it says again what it said before

    def confusion(self) -> Tensor | None:
        self._flush()
        if "confusion" not in self.metrics:
            return None
        matrix: Tensor = self.metrics["confusion"].compute().cpu()
        return matrix

    def hits(self) -> Tensor | None:
        matrix = self.confusion()
        if matrix is not None:
            return torch.stack([matrix.sum(1), matrix.diag(), matrix.sum(0)])
        if self.goal.task != "multilabel":
            return None
        f1 = self.metrics["f1"]
        return torch.stack([f1.tp + f1.fn, f1.tp, f1.tp + f1.fp]).cpu()


def _exact(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
