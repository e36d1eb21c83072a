"""Objectives: losses and metrics of all tasks against plain torch, and sums that add up."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tlcompile.recipe.tasks import TASKS, metrics_of
from tlcompile.training.goal import Goal, Scale, simple_goal
from tlcompile.training.losses import build_loss
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Objective

_RANDOM = torch.Generator().manual_seed(3)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_RANDOM)


def classes(count: int, *shape: int) -> Tensor:
    return torch.randint(0, count, shape, generator=_RANDOM)


CASES: dict[str, tuple[int, Tensor, Tensor]] = {
    "classification": (7, drawn(50, 7), classes(7, 50)),
    "binary": (2, drawn(50, 1), classes(2, 50)),
    "multilabel": (4, drawn(50, 4), classes(2, 50, 4)),
    "regression": (2, drawn(50, 2), 30 + 5 * drawn(50, 2)),
    "segmentation": (3, drawn(6, 3, 8, 8), classes(3, 6, 8, 8)),
}


def objective(task: str) -> Objective:
    return Objective({"": simple_goal(task, CASES[task][0])})


def added(one: Objective, outputs: Any, targets: Any, size: int = 8) -> tuple[Score, Score]:
    """Return what running and scoring say after batches of some size."""
    running, scoring = one.running(), one.scoring()
    for rows, labels in zip(outputs.split(size), targets.split(size), strict=True):
        running.add(one.loss(rows, labels), rows, labels)
        scoring.add(one.judge(rows, labels), rows, labels)
    return running.score(), scoring.score()


def test_classification_counts_as_ever() -> None:
    _, logits, labels = CASES["classification"]
    running, scoring = added(objective("classification"), logits, labels)
    right = int((logits.argmax(1) == labels).sum())
    assert running.correct == scoring.correct == right
    total = sum(
        F.cross_entropy(rows, wanted).double() * len(rows)
        for rows, wanted in zip(logits.split(8), labels.split(8), strict=True)
    )
    assert running.loss == scoring.loss == float(total) / 50  # to the bit
    top = logits.topk(5).indices
    assert scoring.value("top5") == pytest.approx(
        float((top == labels[:, None]).any(1).float().mean())
    )


def test_f1_is_the_mean_over_classes() -> None:
    _, logits, labels = CASES["classification"]
    found, shares = logits.argmax(1), []
    for one in range(7):
        both = int(((found == one) & (labels == one)).sum())
        shares.append(2 * both / int((found == one).sum() + (labels == one).sum()))
    _, scoring = added(objective("classification"), logits, labels)
    assert scoring.value("f1") == pytest.approx(sum(shares) / 7)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    _, logits, labels = CASES["binary"]
    ones, zeros = logits[labels == 1, 0], logits[labels == 0, 0]
    _, scoring = added(objective("binary"), logits, labels)
    pairs = float((ones[:, None] > zeros[None]).float().mean())
    assert scoring.value("auroc") == pytest.approx(pairs, abs=1e-6)
    _, far = added(objective("binary"), logits * 100, labels)  # in fp32 these sigmoids are 0 and 1
    assert far.value("auroc") == pytest.approx(pairs, abs=1e-6)
    _, alone = added(objective("binary"), logits, torch.ones_like(labels))
    assert math.isnan(alone.value("auroc"))


def test_numbers_are_judged_in_their_own_units() -> None:
    _, outputs, targets = CASES["regression"]
    scale = Scale.of(targets)
    one = Objective({"": simple_goal("regression", 2, scale=scale)})
    off = outputs * scale.std + scale.mean - targets
    running, scoring = added(one, outputs, targets)
    assert running.value("mae") == pytest.approx(float(off.abs().mean()), rel=1e-5)
    assert scoring.value("mae") == pytest.approx(float(off.abs().mean()), rel=1e-5)
    assert scoring.value("rmse") == pytest.approx(float(off.square().mean().sqrt()), rel=1e-5)
    assert scoring.loss == pytest.approx(float((off / scale.std).square().mean()), rel=1e-4)
    mean, _ = added(one, torch.zeros_like(outputs), targets)
    assert mean.loss == pytest.approx(1.0)  # who says the mean is one deviation off
    assert torch.equal(Scale.of(torch.ones(3, 1)).std, torch.ones(1))


def test_the_share_of_variance_of_one_sample_is_no_number() -> None:
    """torchmetrics raises there: a run with one validation image ended in a traceback."""
    _, outputs, targets = CASES["regression"]
    _, scoring = added(objective("regression"), outputs[:1], targets[:1])
    assert math.isnan(scoring.value("r2"))
    assert math.isfinite(scoring.value("mae"))


def test_intersections_over_unions_leave_out_what_does_not_count() -> None:
    _, logits, masks = CASES["segmentation"]
    masks = masks.clone()
    masks[:, :2] = 255
    found, inside = logits.argmax(1), masks != 255
    shares = []
    for one in range(3):
        both = int(((found == one) & (masks == one)).sum())
        either = int((((found == one) | (masks == one)) & inside).sum())
        shares.append(both / either)
    _, scoring = added(objective("segmentation"), logits, masks)
    assert scoring.value("iou") == pytest.approx(sum(shares) / 3, rel=1e-5)
    right = (found == masks)[inside].float().mean()
    assert scoring.value("accuracy") == pytest.approx(float(right), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_batches_of_any_size_score_the_same(task: str) -> None:
    _, outputs, targets = CASES[task]
    whole, parts = (added(objective(task), outputs, targets, size) for size in (50, 3))
    for one, other in zip(whole, parts, strict=True):
        assert one.correct == other.correct
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.values == pytest.approx(other.values, rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_sums_are_taken_up_again_and_add_up(task: str) -> None:
    """A resume takes them up in the middle of an epoch; ranks add theirs."""
    one, (_, outputs, targets) = objective(task), CASES[task]
    half = len(targets) // 2
    whole, first, second = one.running(), one.running(), one.running()
    for running, rows in ((first, slice(0, half)), (second, slice(half, None))):
        running.add(one.loss(outputs[rows], targets[rows]), outputs[rows], targets[rows])
        whole.add(one.loss(outputs[rows], targets[rows]), outputs[rows], targets[rows])
    resumed = one.running()
    resumed.load({name: tensor.clone() for name, tensor in first.tensors().items()})
    assert resumed.score() == first.score()
    resumed.add(one.loss(outputs[half:], targets[half:]), outputs[half:], targets[half:])
    assert resumed.score() == whole.score()
    summed, a, b = one.running(), first.tensors(), second.tensors()
    summed.load({name: a[name] + b[name] for name in a})
    assert summed.score() == whole.score()


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_measured_and_torchmetrics_agrees_on_its_direction(task: str) -> None:
    width, outputs, targets = CASES[task]
    running, scoring = added(objective(task), outputs, targets)
    assert all(math.isfinite(scoring.value(name)) for name in objective(task).metrics)
    assert all(math.isfinite(running.value(name)) for name in objective(task).trained)
    goal = simple_goal(task, width)
    for name in goal.measured(full=True):
        if name != "confusion":
            assert goal.metric(name).higher_is_better is metrics_of(task, width)[name], name


def test_mixed_labels_count_as_what_they_are_most() -> None:
    one, soft = objective("classification"), torch.tensor([[0.7, 0.3, 0, 0, 0, 0, 0]])
    running = one.running()
    running.add(one.loss(torch.eye(7)[:1], soft), torch.eye(7)[:1], soft)
    assert running.score().correct == 1


def two() -> Objective:
    kinds = Goal(
        task="classification", classes=("a", "b", "c"), loss=build_loss("classification"),
        named=True,
    )  # fmt: skip
    return Objective({"kind": kinds, "age": simple_goal("regression", 1, named=True, weight=0.1)})


def test_several_outputs_are_summed_by_their_weights() -> None:
    outputs, targets = (
        {"kind": drawn(6, 3), "age": drawn(6, 1)},
        {"kind": classes(3, 6), "age": drawn(6, 1)},
    )
    one = two()
    wanted = F.cross_entropy(outputs["kind"], targets["kind"]) + 0.1 * F.mse_loss(
        outputs["age"], targets["age"]
    )
    assert torch.allclose(one.loss(outputs, targets), wanted)
    scoring = one.scoring()
    scoring.add(one.judge(outputs, targets), outputs, targets)
    found = scoring.score()
    assert found.loss == pytest.approx(float(wanted))
    assert found.value("kind/loss") + 0.1 * found.value("age/loss") == pytest.approx(float(wanted))
    assert set(one.trained) == {"loss", "kind/accuracy", "age/mae"}
    assert set(scoring.confusion()) == {"kind"}
    assert int(scoring.confusion()["kind"].sum()) == 6
    again = one.scoring()
    again.load(scoring.tensors())
    assert again.score() == found


def test_a_loss_of_ones_own_reads_any_tree_and_tells_the_loss_alone() -> None:
    one = Objective.of_loss(lambda outputs, targets: (outputs[0] - targets["a"][0]).abs().mean())
    outputs, targets = (torch.ones(4),), {"a": (torch.zeros(4),), "b": torch.ones(4)}
    running = one.running()
    running.add(one.loss(outputs, targets), outputs, targets)
    score = running.score()
    assert (score.loss, score.correct, score.count) == (1.0, None, 4)
    assert one.metrics == {"loss": False}
    assert math.isnan(score.accuracy)


def test_labels_are_counted_one_by_one() -> None:
    one = objective("multilabel")
    scoring = one.scoring()
    outputs = torch.tensor([[1.0, -1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0]])
    targets = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]])
    scoring.add(one.judge(outputs, targets), outputs, targets)
    count, right, taken = scoring.hits()[""].tolist()
    assert count == [1, 1, 0, 2]
    assert right == [1, 1, 0, 2]
    assert taken == [2, 1, 1, 2]
