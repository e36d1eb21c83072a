"""What `fit` is given from Python: an optimizer, a loss, labels. Refused here, before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from tlcompile.errors.base import did_you_mean
from tlcompile.errors.fitting import WrongArgumentError, WrongLabelsError
from tlcompile.errors.run import NothingTrainsError
from tlcompile.features.batches import Labels, shown
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.losses import build_loss
from tlcompile.training.optim import OPTIMIZERS, build_optimizer
from tlcompile.training.schedule import default_rate

Loss = Callable[[Any, Any], Tensor]  # (outputs, labels) -> one number

NAMED: Final = tuple(name for name in OPTIMIZERS if name != "muon")  # that takes matrices alone
TASKS: Final = ("classification", "binary")


def refuse_unless_positive(**values: object) -> None:
    """Refuse arguments that are no whole numbers from 1 on.

    Raises:
        WrongArgumentError: The first one that is none.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _wrong(name, repr(value), "a whole number from 1 on", f"{name}=32")


def optimizer_of(
    model: CompiledModel, optimizer: torch.optim.Optimizer | str, lr: float | None
) -> torch.optim.Optimizer:
    """Return the optimizer, built where it is only named.

    Raises:
        NothingTrainsError: Everything is frozen.
        WrongArgumentError: It moves nothing of what trains, or has no such name or rate.
    """
    named = list(model.trainable())
    if not named:
        raise NothingTrainsError(frozen=sum(p.numel() for p in model.parameters()))
    if isinstance(optimizer, str):
        if optimizer not in NAMED:
            advice = did_you_mean(optimizer, NAMED, "give an optimizer of torch.optim")
            raise _wrong("optimizer", repr(optimizer), ", ".join(NAMED), advice)
        if lr is not None and not 0 <= lr < float("inf"):
            raise _wrong("lr", repr(lr), "a number from 0 on", "lr=1e-3")
        rate = default_rate(model) if lr is None else lr
        return build_optimizer(optimizer, named, lr=rate)
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        wanted = f"an optimizer of torch.optim that steps without a closure, or {', '.join(NAMED)}"
        raise _wrong("optimizer", type(optimizer).__name__, wanted, "optimizer='adamw', lr=1e-3")
    if lr is not None:
        advice = "drop lr, or name the optimizer: optimizer='sgd', lr=0.1"
        raise _wrong("lr", f"{lr} beside an optimizer", "one learning rate", advice)
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(parameter) in moved for _, parameter in named):
        found = "an optimizer that moves no trainable parameter of this model"
        advice = "build it over them: torch.optim.SGD([p for _, p in model.trainable()], lr=0.1)"
        raise _wrong("optimizer", found, f"one over {named[0][0]} and the like", advice)
    return optimizer


def loss_of(loss: Loss | str) -> tuple[str | None, Loss]:
    """Return the task that a loss is of, where it is one, and the loss.

    Raises:
        WrongArgumentError: It is no loss; while training, where it returns no number.
    """
    if isinstance(loss, str):
        if loss not in TASKS:
            advice = did_you_mean(loss, TASKS, "give a function of (outputs, labels)")
            raise _wrong("loss", repr(loss), ", ".join(TASKS), advice)
        return loss, build_loss(loss)
    if not callable(loss):
        raise _wrong("loss", type(loss).__name__, "a function of (outputs, labels)", _OWN_LOSS)

    def checked(outputs: Any, labels: Any) -> Tensor:
        value = loss(outputs, labels)
        if not isinstance(value, Tensor) or value.dim():
            raise _wrong("loss", f"it returns {shown(value)}", "a tensor of one number", _OWN_LOSS)
        if torch.is_grad_enabled() and not value.requires_grad:
            found = "it returns a number that does not depend on what trains"
            raise _wrong("loss", found, "one that the outputs decide", _OWN_LOSS)
        return value

    return None, checked


_OWN_LOSS: Final = "loss=lambda outputs, labels: torch.nn.functional.cross_entropy(outputs, labels)"


def refuse_other_labels(labels: Labels, task: str | None, output: Callable[[], Any]) -> None:
    """Refuse labels, or a model, that the loss of a task cannot read.

    Args:
        labels: Of all samples.
        task: None: a loss of the caller's own, which reads what it likes.
        output: Gives what the model returns for one sample.

    Raises:
        WrongLabelsError: They are missing, or no class indices.
        WrongArgumentError: The model does not return one row of logits a sample.
    """
    if labels is None:
        found, wanted = "no labels", "a loader that gives (inputs, labels)"
        raise WrongLabelsError(task=task, found=found, wanted=wanted)
    if task is None:
        return
    logits = output()
    one = isinstance(logits, Tensor) and logits.dim() == 2
    if not one or (task == "binary" and logits.shape[1] != 1):
        wanted = f"logits ({'N, 1' if task == 'binary' else 'N, classes'}) of the model"
        found = f"'{task}', and a model that returns {shown(logits)}"
        raise _wrong("loss", found, wanted, _OWN_LOSS)
    classes = 2 if task == "binary" else logits.shape[1]
    wanted = f"class indices from 0 to {classes - 1}, int64 (N,)"
    if not isinstance(labels, Tensor) or labels.dim() != 1 or labels.dtype != torch.int64:
        raise WrongLabelsError(task=task, found=shown(labels), wanted=wanted)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= classes:
        found = f"class indices from {lowest} to {highest}"
        raise WrongLabelsError(task=task, found=found, wanted=wanted)


def _wrong(name: str, found: str, wanted: str, advice: str) -> WrongArgumentError:
    return WrongArgumentError(name=name, found=found, wanted=wanted, advice=advice)
