from __future__ import annotations

import pytest
import torch

from tlcompile.data.samples import Samples
from tlcompile.data.split import stratified_split


def make(*counts: int) -> Samples:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return Samples(
        ids=tuple(map(str, range(len(labels)))),
        labels=tuple(labels),
        classes=tuple("abcdefgh"[: len(counts)]),
        fetch=lambda i: bytes([i]),
        decode=lambda _, data: torch.tensor(data[0]),
    )


@pytest.mark.parametrize(
    ("count", "val", "aside"),
    [
        (10, 0.2, 2),
        (1, 0.5, 0),
        (2, 0.01, 1),
        (2, 0.99, 1),
        (3, 0.5, 2),
        (0, 0.2, 0),
        (100, 0.25, 25),
    ],
)
def test_share_of_a_class(count: int, val: float, aside: int) -> None:
    train, held = stratified_split(make(count, 5), val, seed=0)
    assert held.counts()["a"] == aside
    assert train.counts()["a"] == count - aside


def test_every_sample_is_in_one_part_and_the_order_stays() -> None:
    train, val = stratified_split(make(11, 7, 1), 0.3, seed=3)
    for part in (train, val):
        assert list(map(int, part.ids)) == sorted(map(int, part.ids))
        assert [int(part.read(i)) for i in range(len(part))] == list(map(int, part.ids))
    assert sorted(map(int, train.ids + val.ids)) == list(range(19))
    assert train.classes == val.classes == ("a", "b", "c")


def test_split_depends_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = stratified_split(make(50, 50), 0.2, seed=1)[1].ids
    torch.manual_seed(1)
    assert stratified_split(make(50, 50), 0.2, seed=1)[1].ids == first
    assert stratified_split(make(50, 50), 0.2, seed=2)[1].ids != first


def test_a_further_class_moves_no_other() -> None:
    first = stratified_split(make(50, 50), 0.2, seed=1)[1].ids
    more = stratified_split(make(50, 50, 9), 0.2, seed=1)[1].ids
    assert more[: len(first)] == first


def labelled(values: torch.Tensor | dict[str, torch.Tensor]) -> Samples:
    count = len(values if isinstance(values, torch.Tensor) else next(iter(values.values())))
    return Samples(
        ids=tuple(map(str, range(count))),
        labels=(),
        classes=(),
        fetch=lambda i: bytes([i]),
        decode=lambda _, data: torch.tensor(data[0]),
        values=values,
    )


def taken(samples: Samples) -> torch.Tensor:
    values = samples.values
    assert isinstance(values, torch.Tensor)
    return values


def test_each_of_several_labels_has_its_share() -> None:
    shares = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.5])
    marks = (torch.rand(1000, 5) < shares).float()
    train, val = stratified_split(labelled(marks), 0.2, seed=0)
    assert len(val) == 200
    assert len(train) == 800
    wanted = marks.sum(0) * 0.2
    assert ((taken(val).sum(0) - wanted).abs() <= 2).all()  # a draw without care is off by up to 12


def test_each_range_of_numbers_has_its_share() -> None:
    numbers = torch.randn(200, 1).exp()
    _, val = stratified_split(labelled(numbers), 0.25, seed=0)
    rank = numbers.flatten().sort().values
    tenths = torch.bucketize(taken(val).flatten(), rank[20::20].contiguous(), right=True)
    assert torch.bincount(tenths, minlength=10).tolist() == [5] * 10


def test_outputs_have_their_shares_together() -> None:
    species = torch.tensor([0, 1] * 50)
    grams = torch.arange(100.0)[:, None]
    _, val = stratified_split(labelled({"species": species, "mass": grams}), 0.2, seed=0)
    values = val.values
    assert isinstance(values, dict)
    assert abs(torch.bincount(values["species"])[0].item() - 10) <= 1  # of 20, greedily
    assert torch.bincount(values["mass"].flatten().long() // 10).tolist() == [2] * 10


def test_split_of_several_labels_depends_on_the_seed_alone() -> None:
    marks = (torch.rand(60, 3) < 0.3).float()
    first = stratified_split(labelled(marks), 0.2, seed=1)[1].ids
    torch.manual_seed(9)
    assert stratified_split(labelled(marks), 0.2, seed=1)[1].ids == first
    assert stratified_split(labelled(marks), 0.2, seed=2)[1].ids != first
