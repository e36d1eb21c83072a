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
