"""Sums of several members over an epoch: the numbers that `Running` has of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tlcompile.training.fused_optim import picked
from tlcompile.training.goal import Goal
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Objective, Scoring


class Sums:
    """Loss and right samples of members over an epoch, as `Running` counts those of one.

    Args:
        members: How many.
        device: Where they are computed.
    """

    def __init__(self, members: int, device: torch.device) -> None:
        self.loss = torch.zeros(members, dtype=torch.float64, device=device)
        self.correct = torch.zeros(members, dtype=torch.int64, device=device)
        self.count = 0

    def add(self, losses: Tensor, correct: Tensor, count: int) -> None:
        """Add a batch of so many samples."""
        self.loss += losses.to(self.loss.dtype) * count
        self.correct += correct
        self.count += count

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some members alone."""
        self.loss, self.correct = picked(self.loss, places), picked(self.correct, places)

    def scores(self) -> list[Score]:
        """Return each member's score."""
        pairs = zip(self.loss.tolist(), self.correct.tolist(), strict=True)
        return [Score(loss / max(self.count, 1), right, self.count) for loss, right in pairs]

    def tensors(self, place: int) -> dict[str, Tensor]:
        """Return one member's sums by the names that `Running` gives them."""
        count = torch.tensor(self.count)
        return {"loss": self.loss[place], "count": count, "correct": self.correct[place]}

    def load(self, found: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from what `tensors` gave, of each member."""
        self.loss = torch.stack([one["loss"] for one in found])
        self.correct = torch.stack([one["correct"] for one in found])
        self.count = int(found[0]["count"])


class Judging(Protocol):
    """The sums of a block over a split, with every metric."""

    def add(self, losses: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch; losses (K,), logits (K, N, C), targets (N,)."""

    def scoring(self, place: int) -> Scoring:
        """Return those of one member."""
        ...

    def scores(self) -> Iterator[Score]:
        """Yield each member's score."""
        ...


class JudgedAlone:
    """Each member has its own sums: for any metrics."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.each = [objective.scoring() for objective in objectives]

    def add(self, losses: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        for scoring, loss, own in zip(self.each, losses, logits, strict=True):
            scoring.add(loss, own, targets)

    def scoring(self, place: int) -> Scoring:
        """Return those of one member."""
        return self.each[place]

    def scores(self) -> Iterator[Score]:
        """Yield each member's score."""
        return (scoring.score() for scoring in self.each)


class JudgedTogether:
    """Counts of which class was taken for which, of all members at once.

    torchmetrics takes as long to see ten samples of one member as to count a batch of all; it only
    computes here, from the counts that it would have made.
    """

    def __init__(self, objectives: Sequence[Objective], device: torch.device) -> None:
        self.objectives = objectives
        self.goal: Goal = objectives[0].goals[""]
        self.sums = Sums(len(objectives), device)
        shape = (len(objectives), self.goal.width, self.goal.width)
        self.taken = torch.zeros(shape, dtype=torch.int64, device=device)
        self.has_top5 = "top5" in self.goal.metrics
        self.near = torch.zeros_like(self.taken) if self.has_top5 else None

    def add(self, losses: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch."""
        predicted = self.goal.predicted(logits.flatten(0, 1)).view(len(logits), -1)
        right = predicted == targets
        self.sums.add(losses, right.sum(1), len(targets))
        self.taken += self._counted(predicted, targets)
        if self.near is not None:
            best = logits.flatten(0, 1).topk(5, dim=1).indices.view(*predicted.shape, 5)
            near = (best == targets.unsqueeze(1)).any(2)
            self.near += self._counted(torch.where(near, targets, predicted), targets)

    def _counted(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return of each member how often a class (row) was taken for each (column)."""
        members, width = len(predicted), self.goal.width
        first = torch.arange(members, device=targets.device).unsqueeze(1) * width
        places = (first + targets) * width + predicted
        return places.flatten().bincount(minlength=members * width * width).view(self.taken.shape)

    def _tensors(self, place: int) -> dict[str, Tensor]:
        """Return one member's sums by the names that `Running` gives them."""
        found = {**self.sums.tensors(place), "confusion/confmat": self.taken[place]}
        found |= _hits("f1", self.taken[place])
        return found if self.near is None else found | _hits("top5", self.near[place])

    def scoring(self, place: int) -> Scoring:
        """Return those of one member."""
        scoring = self.objectives[place].scoring()
        scoring.load(self._tensors(place))
        return scoring

    def scores(self) -> Iterator[Score]:
        """Yield each member's score."""
        scoring = self.objectives[0].scoring()  # metrics take long to build
        for place in range(len(self.objectives)):
            scoring.load(self._tensors(place))
            yield scoring.score()


def _hits(name: str, matrix: Tensor) -> dict[str, Tensor]:
    """Return how often each class was found, found wrongly, rightly not found, and missed."""
    right, own, taken = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    counts = {"tp": right, "fp": taken - right, "fn": own - right}
    counts["tn"] = matrix.sum() - own - taken + right
    return {f"{name}/{key}": count for key, count in counts.items()}


def judging(objectives: Sequence[Objective], device: torch.device) -> Judging:
    """Return empty sums of a block over a split."""
    if objectives[0].goals[""].task == "classification":
        return JudgedTogether(objectives, device)
    return JudgedAlone(objectives)
