"""Curves that are drawn by hand, one for each line of the textbook's table, and what they are called."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tlcompile.recipe.load import load_recipe
from tlcompile.run.train import train_recipe
from tlcompile.training.curves import Reading, read_curves
from tlcompile.training.metrics import Score

CHANCE = math.log(5)
EPOCHS = 20


@dataclass(frozen=True)
class Epoch:
    phase: str
    train: Score
    val: Score | None


def score(loss: float, accuracy: float | None, count: int) -> Score:
    return Score(loss, None if accuracy is None else round(accuracy * count), count)


def history(
    train: Sequence[float],
    val: Sequence[float] | None,
    *,
    accuracies: tuple[float | None, float | None] = (0.95, 0.94),
    count: int = 1000,
    phase: str = "main",
) -> list[Epoch]:
    judged = val if val is not None else [None] * len(train)
    return [
        Epoch(
            phase,
            score(t, accuracies[0], count),
            None if v is None else score(v, accuracies[1], count),
        )
        for t, v in zip(train, judged, strict=True)
    ]


def read(rows: list[Epoch], before: float = CHANCE) -> Reading:
    return read_curves(rows, chance=CHANCE, before=before)


def curve(of: Callable[[float], float], epochs: int = EPOCHS) -> list[float]:
    """Losses by the share of the run that is over, from above 0 to 1."""
    return [CHANCE * of((epoch + 1) / epochs) for epoch in range(epochs)]


def learns(to: float, *, fast: float = 8.0) -> list[float]:
    return curve(lambda t: to + (1 - to) * math.exp(-fast * t))


FALLS_THEN_RISES = curve(lambda t: 0.3 + 2.0 * max(0.0, t - 0.4) + 0.7 * math.exp(-12 * t))
CURVES = {
    "good fit": (learns(0.1), learns(0.13)),
    "overfitting": (learns(0.01), FALLS_THEN_RISES),
    "underfitting": (curve(lambda t: 0.8 + 0.001 * (t * 20 % 2)), curve(lambda _: 0.82)),
    "rate too high": (curve(lambda t: 0.5 + 0.3 * (round(t * 20) % 2)), curve(lambda _: 0.6)),
    "rate too low": (curve(lambda t: 1.0 - 0.05 * t), curve(lambda t: 1.0 - 0.045 * t)),
    "stopped too early": (curve(lambda t: 1 - 0.7 * t), curve(lambda t: 1 - 0.65 * t)),
}


@pytest.mark.parametrize("verdict", CURVES)
def test_each_line_of_the_table_has_its_verdict(verdict: str) -> None:
    reading = read(history(*CURVES[verdict]))
    assert reading.verdict == verdict
    assert bool(reading.advice) == (verdict != "good fit")


def test_a_run_that_explodes_had_too_high_a_rate() -> None:
    train = [CHANCE * 3000, CHANCE * 8, *learns(1.0)]
    assert read(history(train, learns(1.0, fast=1) + [CHANCE] * 2)).verdict == "rate too high"


def test_a_loss_that_ends_above_its_start_had_too_high_a_rate() -> None:
    train = [CHANCE * (1 + 0.03 * epoch) for epoch in range(10)]
    assert read(history(train, train)).verdict == "rate too high"


def test_a_start_far_above_chance_is_not_the_rates_fault() -> None:
    """Features that are not normalised: 13.7 before the first step, where chance is 1.6."""
    train = [13.6 * math.exp(-0.5 * epoch) for epoch in range(EPOCHS)]
    assert read(history(train, train), before=13.7).verdict == "good fit"


def test_low_training_and_high_validation_is_overfitting_though_it_is_flat() -> None:
    reading = read(history(learns(0.001), learns(0.8), accuracies=(1.0, 0.7)))
    assert reading.verdict == "overfitting"


def test_being_sure_and_wrong_is_overfitting_though_the_accuracy_is_high() -> None:
    """Seen on ants and bees: accuracy 92 %, validation loss 0.92, chance 0.69."""
    high = [*learns(1.2, fast=2)[::-1][:2], *curve(lambda _: 1.3, EPOCHS - 2)]
    reading = read(history(learns(0.001), high, accuracies=(1.0, 0.92)))
    assert reading.verdict == "overfitting"
    assert "sure where it is wrong" in reading.evidence


def test_accuracies_that_are_apart_are_overfitting_though_the_losses_are_near() -> None:
    rows = history(learns(0.3), learns(0.35), accuracies=(0.99, 0.85), count=400)
    assert read(rows).verdict == "overfitting"


@pytest.mark.parametrize("count", [10, 25])
def test_few_validation_samples_are_said_to_be_few(count: int) -> None:
    rows = history(learns(0.1), learns(0.15), accuracies=(1.0, 0.8), count=count)
    reading = read(rows)
    assert reading.verdict == "too few validation samples to tell"
    assert f"n = {count}" in reading.evidence


def test_a_rise_within_its_standard_error_is_no_overfitting() -> None:
    """A rise of a fifth: ten standard errors of 10,000 samples, less than one of 20."""
    rises = [0.3, 0.22, *(0.2 + 0.04 * epoch / 17 for epoch in range(18))]
    train = learns(0.01)
    assert read(history(train, rises, count=10_000)).verdict == "overfitting"
    assert read(history(train, rises, count=20)).verdict != "overfitting"


def test_validation_below_training_is_explained() -> None:
    reading = read(history(learns(0.2), learns(0.15)))
    assert reading.verdict == "good fit"
    assert "below training is usual" in reading.evidence


def test_a_plateau_is_dated() -> None:
    assert (
        "flat since epoch 4" in read(history(learns(0.1, fast=15), learns(0.1, fast=15))).evidence
    )


def test_without_validation_overfitting_cannot_be_seen() -> None:
    reading = read(history(learns(0.01), None))
    assert (reading.verdict, "cannot be seen" in reading.evidence) == ("learned", True)


def test_without_classes_the_losses_alone_are_read() -> None:
    rows = history(learns(0.1), learns(0.12), accuracies=(None, None), count=10)
    assert read(rows).verdict == "good fit"


@pytest.mark.parametrize("epochs", [1, 2])
def test_two_points_are_no_curve(epochs: int) -> None:
    assert read(history([1.0] * epochs, None)).verdict == "too few epochs to tell"


def test_the_last_phase_is_read() -> None:
    """The jump of the training loss at a phase's edge is no jump of the rate's."""
    first = history(learns(0.2), learns(0.2), phase="head")
    last = history(learns(0.01), FALLS_THEN_RISES, phase="all")
    assert read(first + last).verdict == "overfitting"
    assert read(last + first).verdict == "good fit"
    assert f"epoch {EPOCHS + 8}" in read(first + last).evidence


def test_losses_that_are_not_finite_are_not_read() -> None:
    assert read(history([1.0, math.nan, 1.0], None)).verdict == "not to be read"


def test_a_reading_is_one_line_and_plain_data() -> None:
    reading = read(history(*CURVES["overfitting"]))
    assert reading.worded().startswith("curves: overfitting (validation loss ")
    assert "\n" not in reading.worded()
    assert set(reading.as_data()) == {"verdict", "evidence", "advice"}


@pytest.mark.parametrize("verdict", CURVES)
def test_the_verdict_bears_the_noise_of_a_thousand_samples(verdict: str) -> None:
    """Noise of a tenth of the standard error: the samples are the same in each epoch."""
    draw = random.Random(0)
    for _ in range(20):
        noisy = [
            [loss * (1 + draw.gauss(0, 0.1 / math.sqrt(1000))) for loss in losses]
            for losses in CURVES[verdict]
        ]
        assert read(history(*noisy)).verdict == verdict


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("override", "verdict"),
    [
        ("fine_tune.epochs=8", "good fit"),
        ("fine_tune.optimizer.lr=1e-5", "rate too low"),
        ("fine_tune.optimizer.lr=1", "rate too high"),
        ("fine_tune.epochs=2", "too few epochs to tell"),
    ],
)
def test_real_runs_of_digits_have_the_verdict_that_they_were_made_for(
    tmp_path: Path, override: str, verdict: str, seed: int
) -> None:
    recipe = load_recipe("recipes/digits.yaml", [override, f"fine_tune.seed={seed}"])
    assert train_recipe(recipe, tmp_path / "run").record["curves"]["verdict"] == verdict


def test_a_plateau_around_half_of_chance_is_no_good_fit() -> None:
    """Digits on a frozen network: 80 % in training, 71 % in validation, and more when it thaws."""
    train, val = learns(0.48), learns(0.53)
    assert read(history(train, val, accuracies=(0.8, 0.71), count=449)).verdict == "underfitting"
    assert read(history(train, learns(0.49), count=449)).verdict == "good fit"
    assert read(history(learns(0.3), learns(0.34), count=449)).verdict == "good fit"
