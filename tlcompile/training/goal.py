"""What one output is to become: its loss, its metrics, and what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softsign

from tlcompile.recipe.tasks import IGNORED, main_metric, metrics_of
from tlcompile.training.losses import Loss, build_loss, main_logits, predicted, probabilities


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the numbers to predict, in which the model learns.

    Attributes:
        mean: (T,) of each.
        std: (T,) of each; 1 where all are equal.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, targets: Tensor) -> Scale:
        """Measure it.

        Shape:
            in: (N, T)
        """
        exact = targets.double()
        std = exact.std(0, correction=0)
        return cls(exact.mean(0).float(), torch.where(std > 0, std, 1).float())

    def to(self, device: torch.device | str) -> Scale:
        """Return it on a device."""
        return Scale(self.mean.to(device), self.std.to(device))


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What one output is trained on, and judged by.

    Attributes:
        task: Of recipe.tasks.TASKS.
        classes: Names of classes, labels or numbers, in the order of the outputs; binary: two.
        loss: Mean over a batch, to learn by.
        plain: The same to report of validation, without label smoothing; None: `loss`.
        weight: Factor of its loss in the sum over outputs.
        named: Whether it is one output of several.
        scale: Of a regression.
    """

    task: str
    classes: tuple[str, ...]
    loss: Loss
    plain: Loss | None = None
    weight: float = 1.0
    named: bool = False
    scale: Scale | None = None

    @property
    def width(self) -> int:
        """Number of classes, labels or numbers."""
        return len(self.classes)

    @property
    def counts(self) -> bool:
        """Whether each sample is right or wrong."""
        return self.task in ("classification", "binary")

    @property
    def metrics(self) -> dict[str, bool]:
        """The metrics, loss first, main one second: True where higher is better."""
        return metrics_of(self.task, self.width)

    def measured(self, *, full: bool) -> list[str]:
        """Return the torchmetrics that are needed; accuracy and loss are counted here."""
        own = ("loss", "accuracy")
        if not full:
            return [name for name in (main_metric(self.task),) if name not in own]
        metrics = [name for name in self.metrics if name not in own]
        return metrics if self.task in ("regression", "multilabel") else [*metrics, "confusion"]

    def learn(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the mean loss over a batch, to learn by."""
        return self.loss(outputs, self._scaled(targets))

    def judge(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the mean loss over a batch, to report of validation."""
        loss = self.loss if self.plain is None else self.plain
        return loss(outputs, self._scaled(targets))

    def _scaled(self, targets: Tensor) -> Tensor:
        if self.task != "regression":
            return targets
        numbers = targets.unsqueeze(1) if targets.dim() == 1 else targets
        return numbers if self.scale is None else (numbers - self.scale.mean) / self.scale.std

    def unscaled(self, outputs: Tensor) -> Tensor:
        """Return the numbers that outputs mean, in the units of the targets."""
        return outputs if self.scale is None else outputs * self.scale.std + self.scale.mean

    def logits(self, outputs: Any) -> Tensor:
        """Return the outputs that are judged, in full precision."""
        logits = main_logits(outputs) if self.task == "segmentation" else outputs
        return logits if logits.dtype == torch.float64 else logits.float()

    def hard(self, targets: Tensor) -> Tensor:
        """Return targets that mixing made soft as what they are most."""
        if self.counts and targets.is_floating_point():
            return targets.argmax(1) if targets.dim() == 2 else (targets > 0.5).long()
        if self.task == "multilabel":
            return (targets > 0.5).long()
        return targets

    def predicted(self, logits: Tensor) -> Tensor:
        """Return the most likely class of each sample or pixel, or the labels that are present."""
        return predicted(self.task, logits)

    def meaning(self, outputs: Any) -> Tensor:
        """Return what outputs say: probabilities, numbers in their own units, or maps of classes.

        Shape:
            out: (N, classes), (N, T), or (N, H, W) uint8
        """
        logits = self.logits(outputs)
        if self.task == "regression":
            return self.unscaled(logits)
        if self.task == "segmentation":
            return self.predicted(logits).to(torch.uint8)
        return probabilities(self.task, logits)

    # Metrics

    def metric(self, name: str) -> Any:
        """Build one of torchmetrics' metrics. Its import takes long: only what measures does it."""
        import torchmetrics.classification as c
        import torchmetrics.regression as r

        options: dict[str, Any] = {"sync_on_compute": name in ("auroc", "map")}
        if self.task == "regression":
            build = {"mae": r.MeanAbsoluteError, "r2": r.R2Score, "rmse": r.MeanSquaredError}[name]
            return build(**options, **({"squared": False} if name == "rmse" else {}))
        options["validate_args"] = False  # it would wait for the device
        if self.task == "binary":
            found = {"f1": c.BinaryF1Score, "auroc": c.BinaryAUROC}
            return found.get(name, c.BinaryConfusionMatrix)(**options)
        if self.task == "multilabel":
            several = {"f1": c.MultilabelF1Score, "map": c.MultilabelAveragePrecision}[name]
            return several(self.width, average="macro", **options)
        if self.task == "segmentation":
            options["ignore_index"] = IGNORED
        match name:
            case "f1":
                return c.MulticlassF1Score(self.width, average="macro", **options)
            case "top5":
                return c.MulticlassAccuracy(self.width, top_k=5, average="micro", **options)
            case "iou":
                return c.MulticlassJaccardIndex(self.width, average="macro", **options)
        return c.MulticlassConfusionMatrix(self.width, **options)

    def seen_by(self, name: str, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a metric compares: classes, ranks, or numbers in their own units."""
        if self.task == "regression":
            numbers = targets.unsqueeze(1) if targets.dim() == 1 else targets
            return self.unscaled(logits), numbers.to(logits.dtype)
        if name in ("auroc", "map"):
            # The order alone counts: softsign keeps it where a sigmoid is 1 for all above 17.
            exact = logits if logits.device.type == "mps" else logits.double()
            ranks = softsign(exact) / 2 + 0.5
            return (ranks.squeeze(1) if self.task == "binary" else ranks), targets
        if name == "top5":
            return logits, targets
        return self.predicted(logits), targets


def simple_goal(task: str, width: int, **changes: Any) -> Goal:
    """Return the goal of a task with the loss that is its default; its classes are numbers."""
    return Goal(task=task, classes=tuple(map(str, range(width))), loss=build_loss(task), **changes)
