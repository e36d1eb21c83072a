"""Lines of `data` that say nothing to the task are errors at their place; what is told is known."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import make_recipe

from tlcompile.errors.base import TLCompileError

TWO = {
    "task": {"species": {"task": "classification"}, "mass": {"task": "regression"}},
    "outputs": ["species", "mass"],
}
MULTI = {"task": "multilabel"}


@pytest.mark.parametrize(
    ("sections", "place", "words"),
    [
        ({"data": {"folder": "d", "dataset": "digits"}}, "data", "both say where the images are"),
        ({"data": {"csv": "t", "dataset": "digits"}}, "data", "both say where the images are"),
        ({"data": {"csv": "t", "huggingface": "h"}}, "data", "both say where the images are"),
        ({"data": {"folder": "d", "split": {"column": "f"}}}, "data", "split.column has no effect"),
        ({"data": {"folder": "d", "image": "f"}}, "data", "image has no effect"),
        ({"data": {"dataset": "digits", "target": "f"}}, "data", "target has no effect"),
        ({"data": {"folder": "d"}, **MULTI}, "data.folder", "says one class an image"),
        ({"data": {"dataset": "mnist"}, "task": "segmentation"}, "data.dataset", "one class"),
        ({"data": {"huggingface": "h"}, "task": "segmentation"}, "data.huggingface", "masks"),
        ({"data": {"csv": "t"}, "task": "regression"}, "data.csv", "wants columns of numbers"),
        ({"data": {"csv": "t", "target": ["a", "b"]}}, "data.target", "reads one column"),
        ({"data": {"csv": "t", "target": "a"}, **TWO}, "data.target", "no effect on several"),
        ({"data": {"folder": "d"}, **TWO}, "data.folder", "says one class an image"),
        ({"data": {"classes": ["a", "b"]}, **TWO}, "data.classes", "classes has no effect"),
        (
            {"data": {"csv": "t", "target": "g", "classes": ["a"]}, "task": "regression"},
            "data.classes",
            "classes has no effect",
        ),
        ({"data": {"csv": "t", "per_class": 5}, **MULTI}, "data.per_class", "no one class"),
        ({"data": {"folder": "d", "classes": ["a"]}}, "data.classes", "two classes or more"),
        ({"data": {"folder": "d", "classes": ["a", "b", "a"]}}, "data.classes", "names 'a' twice"),
        ({"data": {"csv": "t", "target": ["a", "a"]}, **MULTI}, "data.target", "names 'a' twice"),
        (
            {"fine_tune": {"sampling": "balanced"}, **MULTI},
            "fine_tune.sampling",
            "balanced has no effect",
        ),
        (
            {"fine_tune": {"sampling": "balanced"}, **TWO},
            "fine_tune.sampling",
            "balanced has no effect",
        ),
    ],
)
def test_line_without_effect_is_refused_at_its_place(
    sections: dict[str, Any], place: str, words: str
) -> None:
    with pytest.raises(TLCompileError, match=words) as caught:
        make_recipe(**sections)
    assert ".".join(map(str, caught.value.key)) == place
    assert caught.value.where is not None


@pytest.mark.parametrize(
    "sections",
    [
        {"data": {"csv": "t.csv", "folder": "images"}},
        {"data": {"csv": "t", "target": ["a", "b"]}, "task": "regression"},
        {"data": {"csv": "t", "target": ["a", "b"], "classes": ["b"]}, **MULTI},
        {"data": {"folder": "d", "classes": ["sky", "road"]}, "task": "segmentation"},
        {"data": {"csv": "t"}, **TWO},
        {"task": "regression"},  # the data may come on the command line
        {"fine_tune": {"sampling": "balanced"}},
    ],
)
def test_line_with_effect_is_taken(sections: dict[str, Any]) -> None:
    make_recipe(**sections)


def test_columns_of_numbers_and_of_marks_tell_the_width() -> None:
    data = {"csv": "t", "target": ["a", "b", "c"]}
    assert make_recipe(data=data, task="regression").known_classes() == 3
    assert make_recipe(data=data, task="multilabel").known_classes() == 3
    one = {"csv": "t", "target": "tags"}
    assert make_recipe(data=one, task="multilabel").known_classes() is None
    assert make_recipe(data=one, task="regression").known_classes() == 1


def test_named_data_sets_tell_their_classes() -> None:
    assert make_recipe(data={"dataset": "cifar100"}).known_classes() == 100
