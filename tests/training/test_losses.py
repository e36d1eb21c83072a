"""Losses against plain torch and hand values, and what logits say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tlcompile.training.losses import build_loss, predicted, probabilities

_RANDOM = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_RANDOM)


def classes(count: int, *shape: int) -> Tensor:
    return torch.randint(0, count, shape, generator=_RANDOM)


def test_losses() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    plain = build_loss("classification")(logits, labels)
    assert float(plain) == pytest.approx(float(-logits.log_softmax(1)[[0, 1], labels].mean()))
    smooth = build_loss("classification", label_smoothing=0.3)(logits, labels)
    spread = float(0.7 * plain - 0.3 * logits.log_softmax(1).mean())
    assert float(smooth) == pytest.approx(spread)


def test_binary() -> None:
    logits, labels = torch.tensor([[3.0], [-1.0], [0.5]]), torch.tensor([1, 0, 0])
    value = build_loss("binary")(logits, labels)
    chance = torch.sigmoid(logits.squeeze(1))
    assert float(value) == pytest.approx(float(F.binary_cross_entropy(chance, labels.float())))
    assert predicted("binary", logits).tolist() == [1, 0, 1]
    table = probabilities("binary", logits)
    assert table.shape == (3, 2)
    assert torch.allclose(table.sum(1), torch.ones(3))
    assert table.argmax(1).tolist() == [1, 0, 1]


def test_classification_says_the_largest() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    assert predicted("classification", logits).tolist() == [1]
    assert torch.allclose(probabilities("classification", logits), logits.softmax(1))


def test_soft_labels_are_those_between_two() -> None:
    logits, labels = drawn(4, 3), classes(3, 4)
    one_hot = F.one_hot(labels, 3).float()
    for name in ("cross_entropy", "focal"):
        loss = build_loss("classification", name=name)
        assert torch.allclose(loss(logits, one_hot), loss(logits, labels))
        half = 0.5 * one_hot + 0.5 * one_hot.flip(1)
        between = (loss(logits, one_hot) + loss(logits, one_hot.flip(1))) / 2
        assert torch.allclose(loss(logits, half), between)


def test_several_labels_are_as_many_binary_ones() -> None:
    logits, labels = drawn(5, 3), classes(2, 5, 3)
    alone = [build_loss("binary")(logits[:, i : i + 1], labels[:, i]) for i in range(3)]
    assert torch.allclose(build_loss("multilabel")(logits, labels), torch.stack(alone).mean())


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "smooth_l1"])
def test_losses_of_numbers(name: str) -> None:
    off = torch.tensor([0.5, 3.0])
    hand = {"mse": (0.25 + 9) / 2, "mae": 3.5 / 2, "huber": (0.125 + 2.5) / 2,
            "smooth_l1": (0.125 + 2.5) / 2}  # fmt: skip
    assert float(build_loss("regression", name=name)(off, torch.zeros(2))) == hand[name]


def test_where_it_turns_linear_has_an_effect() -> None:
    off, zero = torch.tensor([3.0]), torch.zeros(1)
    assert float(build_loss("regression", name="huber", delta=2.0)(off, zero)) == 2 * (3 - 1)
    assert float(build_loss("regression", name="smooth_l1", beta=2.0)(off, zero)) == 2.0


CASES: dict[str, tuple[Tensor, Tensor]] = {
    "classification": (drawn(6, 3), classes(3, 6)),
    "binary": (drawn(6, 1), classes(2, 6)),
    "multilabel": (drawn(6, 3), classes(2, 6, 3)),
    "segmentation": (drawn(2, 3, 4, 4), classes(3, 2, 4, 4)),
}


@pytest.mark.parametrize("task", CASES)
def test_a_focal_loss_without_gamma_is_the_plain_one(task: str) -> None:
    plain, focal = build_loss(task), build_loss(task, name="focal", gamma=0.0)
    assert torch.allclose(plain(*CASES[task]), focal(*CASES[task]))
    assert focal(*CASES[task]) > build_loss(task, name="focal", gamma=2.0)(*CASES[task])


def test_a_focal_loss_by_hand() -> None:
    logits = torch.tensor([[0.75, 0.25]]).log()
    value = build_loss("classification", name="focal", gamma=2.0)(logits, torch.tensor([0]))
    assert float(value) == pytest.approx(0.25**2 * -float(torch.tensor(0.75).log()))


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("task", CASES)
def test_weights_multiply_the_loss_of_their_class(task: str, name: str) -> None:
    logits, labels = CASES[task]
    count = 2 if task == "binary" else 3
    plain = build_loss(task, name=name)
    same = build_loss(task, name=name, weights=torch.ones(count))
    assert torch.allclose(same(logits, labels), plain(logits, labels))
    weights = torch.arange(1.0, count + 1)
    weighted = build_loss(task, name=name, weights=weights)
    if task in ("classification", "binary"):
        each = [plain(logits[i : i + 1], labels[i : i + 1]) * weights[labels[i]] for i in range(6)]
        assert torch.allclose(weighted(logits, labels), torch.stack(each).mean())
    assert not torch.allclose(weighted(logits, labels), plain(logits, labels))


def test_the_weighted_mean_of_a_batch_is_that_of_its_halves() -> None:
    """Else accumulation and several devices would learn something else."""
    logits, labels = CASES["classification"]
    loss = build_loss("classification", weights=torch.tensor([1.0, 5.0, 0.2]))
    halves = (loss(logits[:3], labels[:3]) + loss(logits[3:], labels[3:])) / 2
    assert torch.allclose(loss(logits, labels), halves)


def test_pixels_that_do_not_count() -> None:
    logits, masks = CASES["segmentation"]
    rim = masks.clone()
    rim[:, 0] = 255
    loss = build_loss("segmentation")
    inside = F.cross_entropy(logits[:, :, 1:], masks[:, 1:])
    assert torch.allclose(loss(logits, rim), inside)
    assert float(loss(logits, torch.full_like(masks, 255))) == 0.0


def test_an_auxiliary_head_counts_less() -> None:
    logits, masks = CASES["segmentation"]
    outputs: Any = {"out": logits, "aux": logits.flip(1)}
    loss = build_loss("segmentation")
    wanted = loss(logits, masks) + 0.4 * loss(logits.flip(1), masks)
    assert torch.allclose(loss(outputs, masks), wanted)
    assert torch.equal(loss({"out": logits}, masks), loss(logits, masks))
