"""Scores of features against direct transcriptions of their papers, and limits known by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tlcompile.sweep.transferability import (
    h_score,
    kendall_tau,
    leep,
    log_me,
    probe,
    ranking_quality,
)

Array = NDArray[Any]
SHAPES = [(60, 7, 2), (60, 7, 5), (40, 90, 2), (40, 90, 4), (50, 50, 3), (9, 2, 3)]  # n, d, classes


def features_of(n: int, d: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Draw features that say something about their labels, but not all."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    means = random.normal(size=(classes, d))
    scales = random.uniform(0.3, 3.0, d)
    return (0.5 * means[labels] + random.normal(size=(n, d))) * scales + 0.7, labels


# The papers


def log_evidence(f: Array, y: Array) -> float:
    """LogME, ICML 2021: equations 2 and 3 and algorithm 1, with every matrix written out."""
    n, d = f.shape
    alpha = beta = 1.0
    for _ in range(3000):
        a = alpha * np.eye(d) + beta * f.T @ f
        m = beta * np.linalg.solve(a, f.T @ y)
        eigenvalues = np.linalg.eigvalsh(beta * f.T @ f).clip(0)
        gamma = (eigenvalues / (alpha + eigenvalues)).sum()
        before = alpha, beta
        alpha = gamma / (m @ m)
        beta = (n - gamma) / ((f @ m - y) ** 2).sum()
        settled = np.allclose((alpha, beta), before, rtol=1e-11, atol=0)
        if settled or not 1e-8 < alpha / beta < 1e8:  # at its limit
            break
    a = alpha * np.eye(d) + beta * f.T @ f
    m = beta * np.linalg.solve(a, f.T @ y)
    evidence = n / 2 * math.log(beta) + d / 2 * math.log(alpha) - n / 2 * math.log(2 * math.pi)
    evidence += -beta / 2 * ((f @ m - y) ** 2).sum() - alpha / 2 * m @ m
    return float(evidence - np.linalg.slogdet(a)[1] / 2) / n


def log_evidence_by_fixed_point(f: Array, y: Array) -> float:
    """LogME's journal version (JMLR 2022), algorithm 3: t = alpha / beta, by the full SVD of F.

    Its sum over log(alpha + beta sigma) has the d - k dimensions of sigma = 0, too.
    """
    n, d = f.shape
    u, s, _ = np.linalg.svd(f, full_matrices=True)
    sigma = np.zeros(n)
    sigma[: len(s)] = s**2
    z = u.T @ y
    t = 1.0
    for _ in range(3000):
        gamma = (sigma / (t + sigma)).sum()
        m2 = (sigma * z**2 / (t + sigma) ** 2).sum()
        res2 = (z**2 / (1 + sigma / t) ** 2).sum()
        alpha, beta = gamma / m2, (n - gamma) / res2
        t, before = alpha / beta, t
        if abs(t - before) <= 1e-12 * before or not 1e-8 < t < 1e8:  # at its limit
            break
    log_a = np.log(alpha + beta * s**2).sum() + (d - len(s)) * math.log(alpha)
    evidence = d / 2 * math.log(alpha) + n / 2 * math.log(beta) - n / 2 * math.log(2 * math.pi)
    return float(evidence - beta / 2 * res2 - alpha / 2 * m2 - log_a / 2) / n


@pytest.mark.parametrize("evidence", [log_evidence, log_evidence_by_fixed_point])
@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_log_me_is_the_paper_s(n: int, d: int, classes: int, evidence: Any) -> None:
    f, labels = features_of(n, d, classes)
    wanted = np.mean([evidence(f, (labels == c).astype(float)) for c in range(classes)])
    assert log_me(f, labels) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("evidence", [log_evidence, log_evidence_by_fixed_point])
@pytest.mark.parametrize(("n", "d"), [(60, 7), (30, 80)])
def test_log_me_of_numbers_is_the_mean_over_columns(n: int, d: int, evidence: Any) -> None:
    random = np.random.default_rng(1)
    f = random.normal(size=(n, d))
    y = f[:, :3] @ random.normal(size=(3, 2)) + random.normal(size=(n, 2))
    wanted = np.mean([evidence(f, column) for column in y.T])
    assert log_me(f, y) == pytest.approx(wanted, abs=1e-6)


def shrunk_covariance(f: Array) -> tuple[Array, float]:
    """Ledoit and Wolf 2004, lemma 3.2 to 3.4, sample by sample."""
    n, d = f.shape
    x = f - f.mean(0)
    s = x.T @ x / n
    m = np.trace(s) / d
    d2 = ((s - m * np.eye(d)) ** 2).sum() / d
    b_bar2 = sum(((np.outer(row, row) - s) ** 2).sum() / d for row in x) / n**2
    b2 = min(b_bar2, d2)
    return b2 / d2 * m * np.eye(d) + (d2 - b2) / d2 * s, b2 / d2


def between_classes(f: Array, labels: Array) -> Array:
    g = np.stack([f[labels == label].mean(0) for label in labels])
    return np.cov(g, rowvar=False, bias=True)


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_h_score_is_the_paper_s(n: int, d: int, classes: int) -> None:
    """Bao et al. 2019, definition 2: tr(cov(f)^-1 cov(E[f|y]))."""
    f, labels = features_of(n, d, classes)
    inverse = np.linalg.pinv(np.cov(f, rowvar=False, bias=True), rcond=1e-12, hermitian=True)
    wanted = np.trace(inverse @ between_classes(f, labels))
    assert h_score(f, labels) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("n", "d", "classes"), SHAPES)
def test_shrunk_h_score_is_the_paper_s(n: int, d: int, classes: int) -> None:
    """Ibrahim et al. 2022, equation 4: tr(cov_a(f)^-1 (1 - a) cov(E[f|y]))."""
    f, labels = features_of(n, d, classes)
    covariance, share = shrunk_covariance(f)
    wanted = np.trace(np.linalg.inv(covariance) @ ((1 - share) * between_classes(f, labels)))
    assert h_score(f, labels, shrunk=True) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("n", "sources", "classes"), [(50, 4, 3), (30, 100, 2), (200, 2, 5)])
def test_leep_is_the_paper_s(n: int, sources: int, classes: int) -> None:
    """Nguyen et al. 2020, equations 1 and 2, sum by sum."""
    random = np.random.default_rng(0)
    theta, labels = random.dirichlet(np.ones(sources), n), random.integers(0, classes, n)
    total = 0.0
    for i in range(n):
        expected = 0.0
        for z in range(sources):
            joint = sum(theta[j, z] for j in range(n) if labels[j] == labels[i]) / n
            expected += joint / (theta[:, z].sum() / n) * theta[i, z]
        total += math.log(expected)
    assert leep(theta, labels) == pytest.approx(total / n, abs=1e-6)


# Limits known by hand


def test_h_score_of_classes_that_are_points_is_their_number_less_one() -> None:
    labels = np.arange(4000) % 4
    assert h_score(np.eye(4)[labels], labels) == pytest.approx(3)
    assert h_score(np.eye(4)[labels], labels, shrunk=True) == pytest.approx(3, abs=0.1)


def test_h_score_of_random_labels_is_near_its_floor() -> None:
    """d (C - 1) / (n - 1) is expected where features know nothing; shrinking goes below it."""
    random = np.random.default_rng(0)
    f, labels = random.normal(size=(4000, 10)), random.integers(0, 3, 4000)
    assert h_score(f, labels) == pytest.approx(10 * 2 / 3999, rel=0.5)
    assert 0 <= h_score(f, labels, shrunk=True) <= h_score(f, labels)


def test_h_score_with_more_dimensions_than_images_says_nothing_until_it_is_shrunk() -> None:
    random = np.random.default_rng(0)
    f, noise = random.normal(size=(60, 200)), random.integers(0, 3, 60)
    told = np.arange(60) % 3
    f[:, :3] += 8 * np.eye(3)[told]
    assert h_score(f, noise) == pytest.approx(2)
    assert h_score(f, told) == pytest.approx(2)
    assert h_score(f, told, shrunk=True) > h_score(f, noise, shrunk=True) + 0.3


def test_log_me_of_features_that_know_nothing_is_that_of_none() -> None:
    """No direction is used: y ~ N(0, mean of y^2), which of two balanced classes is 1/2."""
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    floor = -0.5 * (math.log(2 * math.pi * 0.5) + 1)
    f = random.normal(size=(2000, 3))
    f -= f[labels == 0].mean(0) * (labels == 0)[:, None]  # nothing is left, not even by chance
    f -= f[labels == 1].mean(0) * (labels == 1)[:, None]
    assert log_me(f, labels) == pytest.approx(floor, abs=1e-6)
    assert log_me(np.zeros((2000, 3)), labels) == pytest.approx(floor, abs=1e-6)
    f[:, 0] += labels
    assert log_me(f, labels) > floor + 0.05


def test_an_exact_fit_is_finite_and_above_all_others() -> None:
    labels = np.arange(60) % 3
    noisy = np.eye(3)[labels] + 0.01 * np.random.default_rng(0).normal(size=(60, 3))
    exact = log_me(np.eye(3)[labels], labels)
    assert math.isfinite(exact)
    assert exact > log_me(noisy, labels) > 1


def test_leep_of_a_perfect_source_classifier_is_zero() -> None:
    labels = np.arange(30) % 3
    perfect = np.eye(5)[labels + 2]  # other names, and two source classes that no image has
    assert leep(perfect, labels) == pytest.approx(0, abs=1e-12)


def test_leep_of_a_classifier_that_knows_nothing_is_minus_the_entropy() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    blind = np.full((40, 4), 0.25)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert leep(blind, labels) == pytest.approx(-entropy)


def test_a_probe_of_separable_classes_is_right_on_every_image() -> None:
    labels = np.arange(60) % 3
    f = np.eye(3)[labels] + 0.01 * np.random.default_rng(0).normal(size=(60, 3))
    found = probe(f, labels)
    assert (found.metric, found.value, found.count) == ("accuracy", 1.0, 60)
    assert found.interval[0] > 0.9


@pytest.mark.parametrize("d", [5, 400])
def test_a_probe_of_random_labels_does_not_learn_them_by_heart(d: int) -> None:
    random = np.random.default_rng(3)
    found = probe(random.normal(size=(300, d)), random.integers(0, 2, 300))
    assert found.interval[0] < 0.5 < found.interval[1] + 0.03


def test_a_probe_explains_what_is_linear_and_nothing_of_noise() -> None:
    random = np.random.default_rng(0)
    f = random.normal(size=(200, 5))
    linear = f @ random.normal(size=(5, 2)) + 3
    assert probe(f, linear).value == pytest.approx(1, abs=1e-6)
    noise = probe(f, random.normal(size=(200, 2)))
    assert noise.metric == "r2"
    assert noise.value < 0.05
    assert noise.interval[0] < noise.value < noise.interval[1]


def test_a_probe_is_not_blinded_by_a_feature_of_another_scale() -> None:
    """Pooled maps of one network reach from 0.1 to 2,500."""
    f, labels = features_of(120, 30, 3)
    scaled = f * np.logspace(-3, 3, 30)
    assert probe(scaled, labels).value == probe(f, labels).value > 0.8


def test_no_image_is_judged_by_a_fit_that_saw_it() -> None:
    """Each image has a feature of its own: whoever saw it would know its label."""
    random = np.random.default_rng(0)
    found = probe(np.eye(200), random.permutation(np.arange(200) % 2))
    assert found.value < 0.6


# Numbers


def bad_features(kind: str) -> Array:
    f, _ = features_of(40, 6, 2)
    match kind:
        case "constant":
            return np.full_like(f, 3.7)
        case "zero":
            return np.zeros_like(f)
        case "duplicate columns":
            return np.concatenate([f, f, f[:, :1] + f[:, 1:2]], axis=1)
        case "large":
            return f * 1e12
        case "small":
            return f * 1e-12
        case "mixed scales":
            return f * np.logspace(-12, 12, 6)
    return f[:, :1]


@pytest.mark.parametrize(
    "kind",
    ["constant", "zero", "duplicate columns", "large", "small", "mixed scales", "one column"],
)
def test_every_score_is_finite(kind: str) -> None:
    f, labels = bad_features(kind), np.arange(40) % 2
    for targets in (labels, np.eye(2)[labels] - 0.5):
        assert math.isfinite(log_me(f, targets))
        assert math.isfinite(probe(f, targets).value)
    for shrunk in (False, True):
        assert -1e-9 <= h_score(f, labels, shrunk=shrunk) <= 1 + 1e-9


def test_a_duplicate_column_changes_nothing_that_is_scaled_by_itself() -> None:
    f, labels = features_of(60, 7, 3)
    twice = np.concatenate([f, f], axis=1)
    assert h_score(twice, labels) == pytest.approx(h_score(f, labels), abs=1e-9)
    assert probe(twice, labels).value == probe(f, labels).value


def test_constant_features_tell_as_much_as_none() -> None:
    labels = np.arange(40) % 2
    for shrunk in (False, True):
        assert h_score(np.full((40, 3), 2.0), labels, shrunk=shrunk) == pytest.approx(0, abs=1e-9)
    assert probe(np.full((40, 3), 2.0), labels).value <= 0.5


def test_half_precision_is_computed_in_double() -> None:
    f, labels = features_of(40, 90, 4)
    half = f.astype(np.float16)
    assert log_me(half, labels) == log_me(half.astype(np.float64), labels)
    assert h_score(half, labels, shrunk=True) == h_score(
        half.astype(np.float64), labels, shrunk=True
    )


def test_class_numbers_are_names_alone() -> None:
    f, labels = features_of(40, 5, 3)
    named = np.array([7, 0, 90])[labels]
    assert log_me(f, named) == pytest.approx(log_me(f, labels))
    assert h_score(f, named) == pytest.approx(h_score(f, labels))


# Rankings


def test_kendall_s_tau_by_hand() -> None:
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert math.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))
    assert math.isnan(kendall_tau([1], [2]))


def test_a_perfect_prediction_has_no_regret() -> None:
    quality = ranking_quality({"a": 0.1, "b": 0.5, "c": 0.3}, {"a": 80.0, "b": 95.0, "c": 90.0})
    assert (quality.kendall_tau, quality.regret) == (1, 0)
    assert quality.best_predicted == quality.best_found == "b"


def test_regret_is_what_the_predicted_point_lacks() -> None:
    scores, accuracy = {"a": 3.0, "b": 2.0, "x": 9.0}, {"a": 0.90, "b": 0.93, "y": 1.0}
    quality = ranking_quality(scores, accuracy)
    assert quality.regret == pytest.approx(0.03)
    assert (quality.best_predicted, quality.best_found) == ("a", "b")
    assert quality.kendall_tau == -1


def test_of_a_loss_the_lowest_is_the_best() -> None:
    quality = ranking_quality({"a": 3.0, "b": 2.0}, {"a": 0.5, "b": 0.2}, rising=False)
    assert quality.best_found == "b"
    assert quality.regret == pytest.approx(0.3)
    assert quality.kendall_tau == -1


def test_points_without_a_result_do_not_count_and_nothing_in_common_is_an_error() -> None:
    quality = ranking_quality({"a": 3.0, "b": 2.0}, {"a": math.nan, "b": 0.2})
    assert quality.best_predicted == quality.best_found == "b"
    assert math.isnan(quality.kendall_tau)
    with pytest.raises(ValueError, match="empty"):
        ranking_quality({"a": 1.0}, {"b": 1.0})
