"""Read the curves of training and validation, as the textbook's table of learning curves does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from tlcompile.training.metrics import Score

SHORTEST = 3  # epochs; two points are a line, whatever happened
RISE = 0.1  # share by which a validation loss may rise above its lowest without a word
GAP = 0.1  # share of samples between the accuracies of training and validation
HIGH = 0.5  # share of chance; a loss above it has learned less than half of what there is
NEAR = 0.8  # of HIGH: a training loss above it is as high as a validation loss beside it
SLOW = 0.7  # share of chance that a training loss had to leave behind by its end
MOVES = 0.05  # share of chance; a change over the last third below it is flat
JUMP = 0.05  # share of chance; a rise of the training loss within an epoch has to be above it
CREEP = 3.0  # mean changes between epochs; noise alone ends so far below its start once in 100 runs
LATE = 0.1  # share of the whole fall in the second half; a cosine's steady fall has 0.18 there
_REGULARISE = "try augmentation, weight decay, label smoothing, or to freeze more"
_FASTER = "try three times the learning rate, or more epochs"
BURST = 2.0  # times the loss before the first step; steps that help never lead there


class Row(Protocol):
    """What is read of an epoch."""

    @property
    def phase(self) -> str:
        """Its phase."""
        ...

    @property
    def train(self) -> Score:
        """Of the training samples, on the way."""
        ...

    @property
    def val(self) -> Score | None:
        """Of the validation samples, after the epoch."""
        ...


@dataclass(frozen=True)
class Reading:
    """What the curves say.

    Attributes:
        verdict: In the textbook's words.
        evidence: The numbers that say so.
        advice: What to try; empty where nothing needs to be done.
    """

    verdict: str
    evidence: str
    advice: str

    def worded(self) -> str:
        """Return one line: 'curves: overfitting (...): try ...'."""
        advice = f"; {self.advice}" if self.advice else ""
        return f"curves: {self.verdict} ({self.evidence}){advice}"

    def as_data(self) -> dict[str, str]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class _Curves:
    """The losses of the last phase, epoch by epoch, and what they are measured by.

    Attributes:
        chance: Loss of a model that knows nothing.
        before: Loss before the first step.
        train: Training losses.
        val: Validation losses; empty without validation data.
        epoch: The epoch of the first of them.
        last: The last epoch's scores.
    """

    chance: float
    before: float
    train: tuple[float, ...]
    val: tuple[float, ...]
    epoch: int
    last: Row

    @property
    def lowest(self) -> int:
        """The place of the lowest validation loss."""
        return self.val.index(min(self.val))

    @property
    def noise(self) -> float:
        """Relative standard error of a validation loss.

        The losses of single samples scatter about as much as their mean is big, so that of n has
        1 / sqrt(n); the scatter itself is not known after the run.
        """
        return 1 / math.sqrt(self.last.val.count) if self.last.val else math.inf

    def fell(self, losses: Sequence[float]) -> float:
        """Return by how much losses fell over the last third, in shares of chance."""
        third = max(1, len(losses) // 3)
        return (losses[-1 - third] - losses[-1]) / self.chance


def read_curves(history: Sequence[Row], *, chance: float, before: float) -> Reading:
    """Read the curves of a run; its last phase where there are several.

    Nothing is said that the number of samples does not carry: a rise of the validation loss counts
    from its own standard error on, two accuracies differ if their 95 % intervals are apart.

    Args:
        history: One row an epoch.
        chance: Loss of a model that knows nothing, from `first_loss.chance_loss`.
        before: Loss of the first step's batch, before any step was taken.
    """
    rows = [row for row in history if row.phase == history[-1].phase]
    if len(rows) < SHORTEST:
        where = " in the last phase" if len(rows) < len(history) else ""
        evidence = f"{len(rows)} epoch{'s' if len(rows) > 1 else ''}{where}"
        return Reading("too few epochs to tell", evidence, "")
    train = tuple(row.train.loss for row in rows)
    val = tuple(row.val.loss for row in rows if row.val is not None)
    if not all(map(math.isfinite, (*train, *val, chance, before))) or chance <= 0:
        return Reading("not to be read", "losses that are not finite, or not above 0", "")
    curves = _Curves(chance, before, train, val, len(history) - len(rows) + 1, rows[-1])
    return next(reading for rule in _RULES if (reading := rule(curves)) is not None)


def _rate_too_high(curves: _Curves) -> Reading | None:
    """Training loss rises, or jumps up and down: steps overshoot."""
    train, chance = curves.train, curves.chance
    noise = 1 / math.sqrt(max(curves.last.train.count, 1))  # as that of validation
    jumps = sum(b - a > JUMP * chance + noise * a for a, b in itertools.pairwise(train))
    if max(train) > BURST * max(chance, curves.before):
        how = f"was {max(train):.3g} at its highest, {curves.before:.3g} before the first step,"
    elif train[-1] - min(train) > 2 * JUMP * chance and train[-1] > train[0]:
        how = f"rose from {min(train):.3g} to {train[-1]:.3g}"
    elif jumps >= max(2, (len(train) - 1) / 3):
        how = f"jumped up {jumps} times"
    else:
        return None
    return Reading(
        "rate too high", f"training loss {how} in {len(train)} epochs",
        "try a third of the learning rate",
    )  # fmt: skip


def _overfitting(curves: _Curves) -> Reading | None:
    """Training goes on to fall while validation rises, or stays far behind."""
    if not curves.val:
        return None
    train, val, lowest = curves.train, curves.val, curves.lowest
    rise = val[-1] / max(val[lowest], 1e-12) - 1
    if lowest < len(val) - 2 and rise > RISE + curves.noise and train[-1] < train[lowest]:
        told = f"validation loss {val[lowest]:.3g} at epoch {curves.epoch + lowest}, {val[-1]:.3g} at the end"
        return Reading("overfitting", f"{told}, training {train[-1]:.3g}", _REGULARISE)
    trained, judged = curves.last.train, curves.last.val
    assert judged is not None
    apart = trained.interval()[0] > judged.interval()[1]  # False where there are no classes
    if apart and trained.accuracy - judged.accuracy > GAP:
        told = f"accuracy {_percent(trained)} in training, {_percent(judged)} in validation"
        return Reading("overfitting", f"{told}, n = {judged.count}", _REGULARISE)
    return None


def _far_behind(curves: _Curves) -> Reading | None:
    """Training is low and validation is high: the textbook's overfitting."""
    if not curves.val:
        return None
    train, val, high = curves.train[-1], curves.val[-1], HIGH * curves.chance
    if not train <= high < val or val - train < 2 * curves.noise * val:
        return None
    told = f"{_losses(curves)}, chance {curves.chance:.3g}"
    judged = curves.last.val
    if judged is not None and val > curves.chance and judged.accuracy > 0.5:
        told += f", yet accuracy {_percent(judged)}: sure where it is wrong"
    return Reading("overfitting", told, _REGULARISE)


def _stopped_too_early(curves: _Curves) -> Reading | None:
    """Both still fall at the end."""
    last_val = curves.val[-1:] or curves.train[-1:]
    falls = curves.fell(curves.train) > MOVES and (
        not curves.val or (curves.fell(curves.val) > MOVES and curves.lowest == len(curves.val) - 1)
    )
    if not falls:
        return None
    slow = min(curves.train[-1], last_val[0]) > SLOW * curves.chance
    told = f"{_losses(curves)}, still falling at the end"
    if slow:
        return Reading("rate too low", told, _FASTER)
    return Reading("stopped too early", told, "try more epochs")


def _underfitting(curves: _Curves) -> Reading | None:
    """Both are high and flat; of two that are near each other, one may be just below."""
    judged, high = (curves.val or curves.train)[-1], HIGH * curves.chance
    if judged <= high or curves.train[-1] <= NEAR * high:
        return None
    train = curves.train
    changes = [abs(a - b) for a, b in itertools.pairwise(train)]
    fell, late = train[0] - train[-1], train[len(train) // 2] - train[-1]
    if fell > CREEP * sum(changes) / len(changes) and late > LATE * fell:
        told = f"{_losses(curves)}, chance {curves.chance:.3g}, falling slowly and steadily"
        return Reading("rate too low", told, _FASTER)
    told = f"{_losses(curves)}, chance {curves.chance:.3g}, hardly falling"
    return Reading("underfitting", told, "try to freeze less, a higher rate, or a larger head")


def _too_few_samples(curves: _Curves) -> Reading | None:
    """The validation samples cannot tell a gap that matters from none."""
    judged = curves.last.val
    low, high = judged.interval() if judged is not None else (math.nan, math.nan)
    if judged is None or not high - low > 2 * GAP:  # nan where there are no classes
        return None
    interval = f"95 % interval {100 * low:.0f} to {100 * high:.0f} %"
    told = f"validation accuracy {_percent(judged)}, n = {judged.count}, {interval}"
    return Reading("too few validation samples to tell", told, "")


def _good_fit(curves: _Curves) -> Reading:
    """Both are low, and near each other as far as one can tell."""
    told = _losses(curves)
    losses = curves.val or curves.train
    flat = next(i for i, loss in enumerate(losses) if loss - min(losses) < MOVES * curves.chance)
    if flat < len(losses) // 2:
        told += f", flat since epoch {curves.epoch + flat}"
    if not curves.val:
        return Reading("learned", f"{told}; no validation data, so overfitting cannot be seen", "")
    if curves.val[-1] < curves.train[-1]:
        # Measured with dropout and augmentation, on weights of half an epoch ago.
        told += "; below training is usual: that is measured on the way"
    return Reading("good fit", told, "")


_RULES: tuple[Callable[[_Curves], Reading | None], ...] = (
    _rate_too_high,
    _overfitting,
    _stopped_too_early,
    _far_behind,
    _underfitting,
    _too_few_samples,
    _good_fit,
)


def _losses(curves: _Curves) -> str:
    train = f"training loss {curves.train[-1]:.3g}"
    return f"{train}, validation {curves.val[-1]:.3g}" if curves.val else train


def _percent(score: Score) -> str:
    return f"{100 * score.accuracy:.0f} %"
