"""How well features tell targets apart, before anything is trained on them. Pure, in float64.

Features are (n, d) arrays. Targets are class indices (n,), or numbers (n, k). What is measured are the
images at hand: of few images little is known, and the functions say so where they can.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcompile.training.metrics import Z95, Score

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The ratio alpha / beta of LogME stays within these factors of the largest eigenvalue: beyond them
# the evidence has reached its limit (features that say nothing, or all), and numbers end.
LEAST_RATIO, MOST_RATIO = 1e-10, 1e10
STEPS = 1000  # of the fixed point, at most; ten are usual
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """How a linear model does on images that it was not fitted on.

    Attributes:
        metric: accuracy, or r2: the share of the variance that is explained, over all columns.
        value: At most 1.
        count: Images, each judged once.
        interval: 95 %.
    """

    metric: str
    value: float
    count: int
    interval: tuple[float, float]


@dataclass(frozen=True)
class RankingQuality:
    """How good a prediction of the best point was.

    Attributes:
        kendall_tau: Between scores and results, -1 to 1; nan: fewer than two points, or all alike.
        regret: What is lost by taking the point that was predicted, in units of the result; 0: none.
        best_predicted: The point with the highest score.
        best_found: The point with the best result.
    """

    kendall_tau: float
    regret: float
    best_predicted: str
    best_found: str


def log_me(features: ArrayLike, targets: ArrayLike) -> float:
    """Return the largest log evidence of a Bayesian linear model, per image; mean over the columns.

    Of classes each has a column of 0 and 1. An exact fit would have no largest one: it ends where
    the ratio of the precisions does.

    Source:
        You, Liu, Wang, Long: LogME, ICML 2021; by the fixed point of alpha / beta of its journal
        version (JMLR 2022). The sum over log |A| has all d dimensions, as the paper has it.
    """
    rows, columns = _rotated(_as_rows(features)), _columns(targets)
    left, singular, _ = _svd(rows)
    spread, along = singular**2, (left.T @ columns) ** 2
    across = np.maximum((columns**2).sum(0) - along.sum(0), 0.0)
    ratio = _best_ratio(spread, along, across, len(rows))
    return float(_evidence(spread, along, across, len(rows), ratio).mean())


def h_score(features: ArrayLike, labels: ArrayLike, *, shrunk: bool = False) -> float:
    """Return how much of the features' variance lies between classes: 0 to (classes - 1).

    With as many dimensions as images it is (classes - 1) whatever the labels. `shrunk` stays
    meaningful there: the covariance is drawn towards a multiple of the identity.

    Source:
        Bao et al.: An information-theoretic approach to transferability, ICIP 2019; shrunk: Ibrahim
        et al.: Newer is not always better, 2022, with Ledoit and Wolf's shrinkage (2004). Both
        covariances are divided by n.
    """
    rows, classes = _as_rows(features), np.asarray(labels)
    centred = rows - rows.mean(0)
    left, singular, _ = _svd(_rotated(centred))
    between = np.zeros(len(singular))
    for one in np.unique(classes):
        member = classes == one
        between += left[member].sum(0) ** 2 / member.sum()
    if not shrunk:
        return float(between.sum())
    variance = singular**2 / len(rows)
    share, mean = _shrinkage(centred, variance)
    return float((1 - share) * (between * variance / ((1 - share) * variance + share * mean)).sum())


def leep(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean log likelihood of labels, told from what a source classifier says; at most 0.

    Args:
        probabilities: (n, source classes), rows sum to 1.
        labels: (n,) class indices.

    Source:
        Nguyen, Hassner, Seeger, Archambeau: LEEP, ICML 2020.
    """
    theta, classes = _as_rows(probabilities), np.asarray(labels)
    names, place = np.unique(classes, return_inverse=True)
    joint = np.zeros((len(names), theta.shape[1]))
    np.add.at(joint, place, theta / len(theta))
    source = joint.sum(0)
    seen = source > 0  # a source class of no image says nothing
    conditional = joint[:, seen] / source[seen]
    return float(np.log((theta[:, seen] * conditional[place]).sum(1)).mean())


def probe(features: ArrayLike, targets: ArrayLike, *, folds: int = FOLDS, seed: int = 0) -> Probe:
    """Fit a ridge regression on all folds but one, and judge it on that one; each fold in turn.

    Features are brought to mean 0 and variance 1 first, whatever the targets. The ridge's strength is
    LogME's alpha / beta of the images that it is fitted on, so that nothing is chosen by looking at
    what it is judged on. Of classes, the largest column wins.

    Args:
        features: (n, d).
        targets: Class indices (n,), each at least twice; or numbers (n, k).
        folds: As many, or as there are images.
        seed: Of the draw.
    """
    rows, columns = _rotated(_standardised(_as_rows(features))), _columns(targets)
    classes = np.asarray(targets)
    of_classes = classes.ndim == 1
    places = _folds(classes if of_classes else np.zeros(len(rows)), min(folds, len(rows)), seed)
    predicted = np.empty_like(columns)
    for fold in range(places.max() + 1):
        aside = places == fold
        predicted[aside] = _ridge(rows[~aside], columns[~aside], rows[aside])
    if of_classes:
        correct = int((columns[np.arange(len(rows)), predicted.argmax(1)] == 1).sum())
        score = Score(math.nan, correct, len(rows))
        return Probe("accuracy", score.accuracy, score.count, score.interval())
    return _explained(columns, predicted)


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-b of two lists: 1 where they order alike, -1 where the other way round.

    nan where one of them is constant, or there are fewer than two values.
    """
    pairs = list(combinations(range(len(one)), 2))
    first = [np.sign(one[i] - one[j]) for i, j in pairs]
    second = [np.sign(other[i] - other[j]) for i, j in pairs]
    untied = math.sqrt(sum(a != 0 for a in first) * sum(b != 0 for b in second))
    return float(np.dot(first, second)) / untied if untied else math.nan


def ranking_quality(
    scores: Mapping[str, float], results: Mapping[str, float], *, rising: bool = True
) -> RankingQuality:
    """Compare what was predicted with what a sweep found, over the points that both have.

    Args:
        scores: By point; the higher, the better the prediction.
        results: By point, such as the best accuracy on val; of seeds, their mean.
        rising: Whether a higher result is better.

    Raises:
        ValueError: They have no point in common.
    """
    points = [point for point in scores if point in results and not math.isnan(results[point])]
    sign = 1.0 if rising else -1.0
    best_predicted = max(points, key=lambda point: scores[point])
    best_found = max(points, key=lambda point: sign * results[point])
    return RankingQuality(
        kendall_tau=kendall_tau([scores[p] for p in points], [sign * results[p] for p in points]),
        regret=sign * (results[best_found] - results[best_predicted]),
        best_predicted=best_predicted,
        best_found=best_found,
    )


def _as_rows(features: ArrayLike) -> Floats:
    return np.asarray(features, dtype=np.float64)


def _columns(targets: ArrayLike) -> Floats:
    """Return numbers as they are, and of class indices a column of 0 and 1 for each that occurs."""
    values = np.asarray(targets)
    if values.ndim == 2:
        return values.astype(np.float64)
    found: Floats = np.equal.outer(values, np.unique(values)).astype(np.float64)
    return found


def _rotated(rows: Floats) -> Floats:
    """Return (n, n) features with the same inner products, where there are more than n of them.

    Nothing here depends on more than those, and on d where it is named.
    """
    if rows.shape[1] <= len(rows):
        return rows
    return np.asarray(np.linalg.qr(rows.T, mode="r"), np.float64).T


def _standardised(rows: Floats) -> Floats:
    """Bring each feature to mean 0 and variance 1; one that is constant says nothing, and is 0."""
    centred, deviation = rows - rows.mean(0), rows.std(0)
    constant = deviation <= np.finfo(np.float64).eps * np.abs(rows).max(0)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))


def _svd(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the thin singular value decomposition without directions that rounding has made."""
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    noise = np.finfo(np.float64).eps * max(rows.shape) * singular.max(initial=0.0)
    real = singular > noise
    return left[:, real], singular[real], right[real]


def _best_ratio(spread: Floats, along: Floats, across: Floats, count: int) -> Floats:
    """Return alpha / beta of the largest evidence, for each column of targets.

    Args:
        spread: (k,) eigenvalues of F'F.
        along: (k, columns) squared targets along the directions of F.
        across: (columns,) squared targets across them.
        count: Images.
    """
    scale = float(spread.max(initial=0.0)) or 1.0
    low, high = LEAST_RATIO * scale, MOST_RATIO * scale
    ratio: Floats = np.clip(np.ones(along.shape[1]), low, high)
    for _ in range(STEPS):
        both = spread[:, None] + ratio
        used = (spread[:, None] / both).sum(0)  # gamma: directions that the targets decide
        unused = (count - len(spread)) + (ratio / both).sum(0)
        weights = (spread[:, None] * along / both**2).sum(0)  # m'm
        missed = ((ratio / both) ** 2 * along).sum(0) + across  # |Fm - y|^2
        with np.errstate(divide="ignore", invalid="ignore"):
            found = used * missed / (weights * unused)
        found = np.clip(np.where(np.isnan(found), high, found), low, high)
        settled = bool((np.abs(found - ratio) <= 1e-9 * ratio).all())
        ratio = found
        if settled:
            break
    return ratio


def _evidence(spread: Floats, along: Floats, across: Floats, count: int, ratio: Floats) -> Floats:
    """Return the log evidence per image of each column at alpha / beta, with the best beta for it."""
    missed = 1 / (1 + spread[:, None] / ratio)
    variance = ((along * missed).sum(0) + across) / count  # 1 / beta
    volume = np.log1p(spread[:, None] / ratio).sum(0) / count
    smallest = np.finfo(np.float64).tiny
    found: Floats = -0.5 * (np.log(2 * math.pi * np.maximum(variance, smallest)) + 1 + volume)
    return found


def _shrinkage(centred: Floats, variance: Floats) -> tuple[float, float]:
    """Return Ledoit and Wolf's share of the identity in the covariance, and its multiple."""
    count, width = centred.shape
    mean = variance.sum() / width
    distance = (variance**2).sum() - variance.sum() * mean
    lengths = (centred**2).sum(1)
    error = ((lengths**2).mean() - (variance**2).sum()) / count
    return (min(error, distance) / distance if distance > 0 else 0.0), float(mean)


def _folds(classes: NDArray[np.generic], folds: int, seed: int) -> Integers:
    """Return the fold of each image: those of a class are spread, and folds are equally large."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    places = np.empty(len(classes), np.int64)
    places[by_class] = np.arange(len(classes)) % folds
    return places


def _ridge(rows: Floats, columns: Floats, others: Floats) -> Floats:
    """Fit, and return what it says of other rows."""
    middle, level = rows.mean(0), columns.mean(0)
    left, singular, right = _svd(rows - middle)
    targets = columns - level
    along = left.T @ targets
    across = np.maximum((targets**2).sum(0) - (along**2).sum(0), 0.0)
    ratio = _best_ratio(singular**2, along**2, across, len(rows))
    weights = right.T @ (along * singular[:, None] / (singular[:, None] ** 2 + ratio))
    told: Floats = (others - middle) @ weights + level
    return told


def _explained(columns: Floats, predicted: Floats) -> Probe:
    """Return R2 with the normal interval of the mean squared error."""
    errors = ((columns - predicted) ** 2).sum(1)
    variance = columns.var(0).sum()
    half = Z95 * errors.std() / math.sqrt(len(errors))
    worst, value, best = (1 - (errors.mean() + by) / variance for by in (half, 0.0, -half))
    return Probe("r2", float(value), len(errors), (float(worst), float(min(1.0, best))))
