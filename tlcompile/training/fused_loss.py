"""Losses of several members on one batch, each as it would be alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.training.fused_ways import TRIED, Way, Ways
from tlcompile.training.goal import Goal
from tlcompile.training.losses import Loss
from tlcompile.training.objective import Objective

Learned = tuple[Tensor, Tensor]  # loss (K,) and gradient (K, N, C) of each member
SampleLosses = Callable[[Tensor, Tensor, float], Tensor]
Means = Callable[[Tensor], Tensor]


def smoothing_of(loss: Loss | None) -> float | None:
    """Return the label smoothing of a plain cross-entropy; None: it is another loss.

    Members of one block share it; of other losses each is computed by itself.
    """
    if not isinstance(loss, partial) or loss.func is not F.cross_entropy:
        return None
    others = set(loss.keywords) - {"label_smoothing"}
    return None if others or loss.args else float(loss.keywords.get("label_smoothing", 0.0))


class BlockLoss:
    """The losses of a block of members.

    Args:
        objectives: Of each member; one output, classes that are right or wrong.
        ways: Chooses how to compute.
    """

    def __init__(self, objectives: Sequence[Objective], ways: Ways) -> None:
        self.objectives, self.ways = list(objectives), ways
        goals = [one.goals[""] for one in objectives]
        self.goal: Goal = goals[0]
        self.learning = _common(smoothing_of(goal.loss) for goal in goals)
        self.judging = _common(smoothing_of(goal.plain or goal.loss) for goal in goals)

    def learn(self, logits: Tensor, targets: Tensor) -> Learned:
        """Return each member's mean loss over a batch, and its gradient.

        Shape:
            in: (K, N, C), (N,)   out: (K,), (K, N, C)
        """
        if self.learning is None:
            return _learn_alone(logits, targets, [one.loss for one in self.objectives])
        learned: Learned = self._way("learn", logits, targets)(logits, targets)
        return learned

    def judge(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return each member's mean loss over a batch, without label smoothing.

        Shape:
            in: (K, N, C), (N,)   out: (K,)
        """
        if self.judging is None:
            pairs = zip(self.objectives, logits, strict=True)
            return torch.stack([one.judge(own.contiguous(), targets) for one, own in pairs])
        losses: Tensor = self._way("judge", logits, targets)(logits, targets)
        return losses

    def _way(self, what: str, logits: Tensor, targets: Tensor) -> Way:
        # A way that is wrong in one number of a hundred shows in some thousands.
        members = max(len(logits), math.ceil(TRIED / max(logits[0].numel(), 1)))
        tried = logits[:1].expand(members, *logits.shape[1:])
        smoothing = (self.learning if what == "learn" else self.judging) or 0.0
        means = _means_in_order if self.ways.exact else _means
        each = _learn_each if what == "learn" else _judge_each
        way = _learn if what == "learn" else _judge
        ways = [partial(way, of, means) for of in (_turned, _in_rows)]
        given = [partial(one, smoothing=smoothing) for one in (*ways, each)]
        return self.ways.choose(f"{what} {smoothing}", given, tried, targets)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return how many samples of a batch each member has right.

        Shape:
            in: (K, N, C), (N,)   out: (K,) int64
        """
        predicted = self.goal.predicted(logits.flatten(0, 1)).view(len(logits), -1)
        return (predicted == targets).sum(1)


def _common(smoothings: Iterable[float | None]) -> float | None:
    found = set(smoothings)
    return found.pop() if len(found) == 1 else None


# Ways of a cross-entropy. Samples last is several times as fast where there are few classes.


def _turned(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the loss of each sample (K, N), computed with the samples last."""
    turned = logits.transpose(1, 2).contiguous()
    every = targets.expand(len(logits), -1)
    return F.cross_entropy(turned, every, reduction="none", label_smoothing=smoothing)


def _in_rows(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the loss of each sample (K, N), as of one batch of all members' samples."""
    rows, every = logits.flatten(0, 1).contiguous(), targets.repeat(len(logits))
    found = F.cross_entropy(rows, every, reduction="none", label_smoothing=smoothing)
    return found.view(len(logits), -1)


def _means(losses: Tensor) -> Tensor:
    return losses.mean(1)


def _means_in_order(losses: Tensor) -> Tensor:
    """Return the mean over each member's samples, added up in the order of torch's own loss."""
    first = losses.new_zeros(losses.shape[1], dtype=torch.int64)
    return torch.stack([F.nll_loss(-own.unsqueeze(1), first) for own in losses])


def _judge(
    of: SampleLosses, means: Means, logits: Tensor, targets: Tensor, *, smoothing: float
) -> Tensor:
    return means(of(logits, targets, smoothing))


def _learn(
    of: SampleLosses, means: Means, logits: Tensor, targets: Tensor, *, smoothing: float
) -> Learned:
    held = logits.detach().requires_grad_()
    with torch.enable_grad():
        losses = of(held, targets, smoothing)
    share = torch.full_like(losses, 1 / losses.shape[1])
    (grad,) = torch.autograd.grad(losses, held, share)
    return means(losses.detach()), grad


def _judge_each(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    loss = partial(F.cross_entropy, label_smoothing=smoothing)
    return torch.stack([loss(own.contiguous(), targets) for own in logits])


def _learn_each(logits: Tensor, targets: Tensor, *, smoothing: float) -> Learned:
    loss = partial(F.cross_entropy, label_smoothing=smoothing)
    return _learn_alone(logits, targets, [loss] * len(logits))


def _learn_alone(logits: Tensor, targets: Tensor, losses: Sequence[Loss]) -> Learned:
    held = [own.detach().clone(memory_format=torch.contiguous_format) for own in logits]
    with torch.enable_grad():
        pairs = zip(losses, held, strict=True)
        found = [loss(own.requires_grad_(), targets) for loss, own in pairs]
        grads = torch.autograd.grad(found, held)
    return torch.stack([one.detach() for one in found]), torch.stack(grads)
