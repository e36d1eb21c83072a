from __future__ import annotations

import torch

from tlcompile.data.order import balanced_weights, epoch_order
from tlcompile.data.samples import Samples, generator


def make(*labels: int) -> Samples:
    return Samples(
        ids=tuple(map(str, labels)),
        labels=labels,
        classes=("a", "b", "c"),
        fetch=lambda i: b"",
        decode=lambda i, data: torch.zeros(1),
    )


def test_without_weights_each_sample_comes_once_as_it_always_did() -> None:
    wanted = torch.randperm(50, generator=generator(3, "order", 2)).tolist()
    assert epoch_order(50, 3, 2) == wanted


def test_order_is_a_function_of_seed_and_epoch() -> None:
    weights = torch.ones(50)
    torch.manual_seed(1)
    first = epoch_order(50, 3, 2, weights)
    torch.manual_seed(2)
    assert epoch_order(50, 3, 2, weights) == first
    assert epoch_order(50, 3, 3, weights) != first
    assert epoch_order(50, 4, 2, weights) != first


def test_balanced_draws_bring_every_class_equally_often() -> None:
    samples = make(*([0] * 900), *([1] * 90), *([2] * 10))
    drawn = epoch_order(len(samples), 0, 1, balanced_weights(samples))
    counts = torch.bincount(torch.tensor(samples.labels)[drawn])
    assert len(drawn) == 1000
    assert (counts - 1000 / 3).abs().max() < 60  # 4 standard deviations; unweighted: 900, 90, 10


def test_weights_are_one_over_the_count_of_the_class() -> None:
    assert balanced_weights(make(0, 0, 2, 0, 2)).tolist() == [1 / 3, 1 / 3, 1 / 2, 1 / 3, 1 / 2]
