"""Hugging Face's format from local folders; the package is an extra."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tlcompile.data.answers import Answer
from tlcompile.data.hub import open_hub
from tlcompile.data.samples import Samples
from tlcompile.errors.archives import IncompleteDatasetError, MissingPackageError
from tlcompile.errors.base import Problems
from tlcompile.errors.tables import BadCellError, MissingColumnError

CLASSES = {"": Answer("classification", ("label",))}


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'tlcompile\[huggingface\]'"):
        opened(tmp_path)


def opened(path: Path, answers: dict[str, Answer] = CLASSES, **given: Any) -> dict[str, Samples]:
    given = {"image": None, "cache": path / "cache", "channels": 3, "say": lambda _: None, **given}
    return open_hub(str(path), answers, **given)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="the extra huggingface is not installed")


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(np.full((4, 5, 3), n, np.uint8)) for n in range(count)]


def part(hub: Any, **columns: Any) -> Any:
    """Make a data set; (type, values) names a column's type."""
    count = len(next(iter(columns.values()))[1])
    types = {"picture": hub.Image(), **{name: kind for name, (kind, _) in columns.items()}}
    values = {"picture": pictures(count), **{name: v for name, (_, v) in columns.items()}}
    return hub.Dataset.from_dict(values, features=hub.Features(types))


def saved(hub: Any, path: Path, **parts: Any) -> Path:
    hub.DatasetDict(parts).save_to_disk(str(path))
    return path


def test_images_labels_and_splits(hub: Any, tmp_path: Path) -> None:
    kind = hub.ClassLabel(names=["wolf", "cat"])
    sets = {
        "train": part(hub, label=(kind, [1, 0, 1])),
        "validation": part(hub, label=(kind, [0, 0])),
        "test": part(hub, label=(kind, [-1, -1])),
    }
    said: list[str] = []
    found = opened(saved(hub, tmp_path / "set", **sets), say=said.append)
    assert list(found) == ["train", "val"]
    assert found["train"].classes == found["val"].classes == ("wolf", "cat")  # its own order
    assert found["train"].labels == (1, 0, 1)
    assert torch.equal(found["train"].read(2), torch.full((3, 4, 5), 2, dtype=torch.uint8))
    assert said[0].endswith("test has no labels and is not used")


def test_same_bytes_are_read_again_and_by_threads(hub: Any, tmp_path: Path) -> None:
    samples = opened(saved(hub, tmp_path / "s", only=part(hub, label=(hub.Value("string"), ["b"]))))
    assert samples["all"].fetch(0) == samples["all"].fetch(0)
    assert samples["all"].fetch(0)[:4] == b"\x89PNG"


def test_column_of_classes_is_found_by_its_type(hub: Any, tmp_path: Path) -> None:
    kind = hub.ClassLabel(names=["x", "y"])
    found = opened(saved(hub, tmp_path / "s", only=part(hub, fine=(kind, [1, 0]))))
    assert found["all"].labels == (1, 0)


def test_labels_that_are_words_are_sorted(hub: Any, tmp_path: Path) -> None:
    words = part(hub, label=(hub.Value("string"), ["wolf", "cat", "wolf"]))
    found = opened(saved(hub, tmp_path / "s", only=words))["all"]
    assert (found.classes, found.labels) == (("cat", "wolf"), (1, 0, 1))


def test_several_labels_and_numbers(hub: Any, tmp_path: Path) -> None:
    tags = hub.List(hub.ClassLabel(names=["red", "blue"]))
    data = part(hub, tags=(tags, [[0, 1], []]), grams=(hub.Value("float32"), [1.5, 2.0]))
    answers = {"a": Answer("multilabel", ("tags",)), "b": Answer("regression", ("grams",))}
    found = opened(saved(hub, tmp_path / "s", only=data), answers)["all"]
    taken = found.targets().take([(0, 0), (1, 0)])
    assert isinstance(taken, dict)
    assert torch.equal(taken["a"], torch.tensor([[1.0, 1], [0, 0]]))
    assert torch.equal(taken["b"], torch.tensor([[1.5], [2.0]]))
    assert found.names["a"] == ("red", "blue")


def test_rows_without_an_answer_are_all_named(hub: Any, tmp_path: Path) -> None:
    data = part(hub, grams=(hub.Value("float32"), [1.5, None, float("nan")]))
    path = saved(hub, tmp_path / "s", only=data)
    with pytest.raises(Problems) as caught:
        opened(path, {"": Answer("regression", ("grams",))})
    problems = [error.problem for error in caught.value.errors if isinstance(error, BadCellError)]
    assert [problem.split(" of ")[0] for problem in problems] == ["row 1", "row 2"]


def test_row_without_a_label_among_others_is_named(hub: Any, tmp_path: Path) -> None:
    data = part(hub, label=(hub.ClassLabel(names=["a", "b"]), [1, -1, 0]))
    with pytest.raises(BadCellError, match="row 1 of"):
        opened(saved(hub, tmp_path / "s", only=data))


def test_missing_columns_are_named(hub: Any, tmp_path: Path) -> None:
    path = saved(hub, tmp_path / "s", only=part(hub, label=(hub.Value("string"), ["a"])))
    with pytest.raises(MissingColumnError, match="did you mean 'picture'"):
        opened(path, image="pictures")
    with pytest.raises(MissingColumnError, match="did you mean 'label'"):
        opened(path, {"": Answer("classification", ("labels",))})


def test_folder_of_another_kind(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(IncompleteDatasetError, match="not whole in"):
        opened(tmp_path / "x")


def test_parquet_files_in_a_folder(hub: Any, tmp_path: Path) -> None:
    data = part(hub, label=(hub.ClassLabel(names=["a", "b"]), [1, 0]))
    (tmp_path / "p").mkdir()
    data.to_parquet(str(tmp_path / "p" / "train.parquet"))
    found = opened(tmp_path / "p", cache=tmp_path / "cache")["all"]
    assert (found.classes, found.labels) == (("a", "b"), (1, 0))
    assert int(found.read(1)[0, 0, 0]) == 1
