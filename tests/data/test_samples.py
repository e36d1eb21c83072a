from __future__ import annotations

import pytest
import torch

from tlcompile.data.samples import Samples, choose, generator
from tlcompile.errors.data import TooFewImagesError, UnknownClassError


def make(labels: str, classes: tuple[str, ...] = ("a", "b", "c")) -> Samples:
    """Samples whose image holds its own number."""
    return Samples(
        ids=tuple(f"{i}.png" for i in range(len(labels))),
        labels=tuple(classes.index(name) for name in labels),
        classes=classes,
        fetch=lambda i: bytes([i]),
        decode=lambda i, data: torch.tensor([[[i if data == bytes([i]) else 255]]]).byte(),
    )


def numbers(samples: Samples) -> list[int]:
    """What `read` gives, which must agree with the ids."""
    read = [int(samples.read(i)) for i in range(len(samples))]
    assert [f"{i}.png" for i in read] == list(samples.ids)
    return read


def test_counts_name_every_class() -> None:
    assert make("abba").counts() == {"a": 2, "b": 2, "c": 0}


def test_subset_of_a_subset_reads_the_right_images() -> None:
    subset = make("abcabc").subset([5, 1, 3]).subset([2, 0])
    assert numbers(subset) == [3, 5]
    assert subset.labels == (0, 2)
    assert subset.classes == ("a", "b", "c")


def test_choose_nothing_changes_nothing() -> None:
    samples = make("abc")
    assert choose(samples) is samples


def test_choose_classes_renumbers_labels_in_the_given_order() -> None:
    chosen = choose(make("abcab"), classes=["c", "a"])
    assert chosen.classes == ("c", "a")
    assert numbers(chosen) == [0, 2, 3]
    assert chosen.labels == (1, 0, 1)


def test_choose_unknown_class_names_the_nearest() -> None:
    with pytest.raises(UnknownClassError, match="did you mean 'roses'") as caught:
        choose(make("", ("roses", "tulips")), classes=["tulips", "rose"])
    assert caught.value.key == ("data", "classes", 1)
    assert caught.value.names == ("rose",)


def test_per_class_draws_n_of_each_in_order() -> None:
    chosen = choose(make("abc" * 10), per_class=4, seed=1)
    assert chosen.counts() == {"a": 4, "b": 4, "c": 4}
    assert numbers(chosen) == sorted(numbers(chosen))


def test_per_class_depends_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = numbers(choose(make("abc" * 20), per_class=5, seed=1))
    torch.manual_seed(1)
    assert numbers(choose(make("abc" * 20), per_class=5, seed=1)) == first
    assert numbers(choose(make("abc" * 20), per_class=5, seed=2)) != first


def test_more_images_a_class_keep_the_fewer() -> None:
    few = numbers(choose(make("abc" * 20), per_class=5, seed=1))
    assert set(few) < set(numbers(choose(make("abc" * 20), per_class=9, seed=1)))


def test_fewer_classes_keep_their_images() -> None:
    whole = choose(make("abc" * 20), per_class=5, seed=1)
    part = choose(make("abc" * 20), classes=["b"], per_class=5, seed=1)
    assert numbers(part) == [i for i in numbers(whole) if i % 3 == 1]


def test_too_few_images_names_the_classes_and_what_to_write() -> None:
    with pytest.raises(TooFewImagesError, match="per_class: 1") as caught:
        choose(make("aaabbc"), per_class=3)
    assert caught.value.counts == (("b", 2), ("c", 1))
    assert caught.value.key == ("data", "per_class")


def test_generators_differ_by_their_parts() -> None:
    def draw(*parts: object) -> int:
        return int(torch.randint(2**60, (1,), generator=generator(*parts)))

    assert draw(1, "a") == draw(1, "a")
    assert len({draw(1, "a"), draw(1, "b"), draw(2, "a"), draw("1", "a"), draw("1a")}) == 5
