"""Data sets in Hugging Face's format, from the hub or a folder. The package is an extra."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlcompile.data.answers import Answer, class_names
from tlcompile.data.folder import OTHER_NAMES
from tlcompile.data.images import decode_image, read_bytes
from tlcompile.data.samples import Samples
from tlcompile.data.table_samples import labelled
from tlcompile.errors.archives import (
    DatasetDownloadError,
    IncompleteDatasetError,
    MissingPackageError,
)
from tlcompile.errors.base import TLCompileError, raise_problems
from tlcompile.errors.tables import BadCellError, MissingColumnError

SHOWN = 20  # bad rows that are listed
_OURS = {other: ours for ours, others in OTHER_NAMES.items() for other in others} | {"test": "test"}
_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves


def open_hub(
    name: str,
    answers: Mapping[str, Answer],
    *,
    image: str | None,
    cache: Path,
    channels: int,
    say: Callable[[str], None],
) -> dict[str, Samples]:
    """Open a data set of the hub, or a folder: of `save_to_disk`, of Parquet files, of images.

    Nothing of it is run: data sets that are programs are not supported by the package any more.

    Args:
        name: On the hub, or of a folder.
        answers: What to predict, by output. A column "label" that is not there is the one of classes.
        image: Column of images; None: the one that holds images.
        cache: Folder that keeps downloads.
        channels: 3 for RGB, 1 for grey.
        say: Takes a line about the download, and about splits that are not used.

    Returns:
        Samples by split. Classes are in the data set's own order where it has one, else sorted.

    Raises:
        MissingPackageError: The extra is not installed.
        DatasetDownloadError, IncompleteDatasetError: The data set cannot be had, or read.
        MissingColumnError: A column is not there.
        BadCellError, Problems: Rows without an answer.
    """
    package = _package()
    found = _splits(_load(package, name, cache, say), name, say)
    first = next(iter(found.values()))
    column = _image_column(package, first, image, name)
    answers = {one: _with_column(package, answer, first, name) for one, answer in answers.items()}
    said = {word: _said(part, answers, f"{name}, {word}") for word, part in found.items()}
    for word in [word for word, one in said.items() if one is None]:
        say(f"{name}: {word} has no labels and is not used")
    names = {
        one: _names(answer, first, (said.get("train") or said.get("all") or {}).get(one, []))
        for one, answer in answers.items()
    }
    return {
        word: labelled(
            _images(part, column, f"{name}/{word}", channels, package), answers, rows, names
        )
        for word, part in found.items()
        if (rows := said[word]) is not None
    }


def _package() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as cause:
        raise MissingPackageError(
            package="datasets", needed_by="data.huggingface", install="tlcompile[huggingface]"
        ) from cause


def _load(package: Any, name: str, cache: Path, say: Callable[[str], None]) -> Any:
    folder = Path(name)
    try:
        if any((folder / file).is_file() for file in _SAVED):
            return package.load_from_disk(name)
        if not folder.is_dir():
            say(f"data set {name} of the Hugging Face hub, kept in {cache}")
        return package.load_dataset(name, cache_dir=str(cache))
    except Exception as cause:  # the package raises what its many readers raise
        words = (str(cause) or type(cause).__name__).splitlines()[0]
        if folder.is_dir():
            raise IncompleteDatasetError(name=name, folder=name, cause=words) from cause
        raise DatasetDownloadError(name=name, cause=words) from cause


def _splits(found: Any, name: str, say: Callable[[str], None]) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {"all": found}
    if len(found) == 1:
        return {"all": next(iter(found.values()))}
    ours = {_OURS.get(word, ""): part for word, part in found.items()}
    unused = [word for word in found if word not in _OURS]
    if unused:
        say(f"{name}: not used: {', '.join(unused)}; used: train, validation, test")
    if "train" not in ours:
        raise IncompleteDatasetError(
            name=name, folder=name, cause=f"no split train, but {', '.join(found)}"
        )
    return {word: ours[word] for word in ("train", "val", "test") if word in ours}


def _image_column(package: Any, part: Any, image: str | None, name: str) -> str:
    there = [one for one, kind in part.features.items() if isinstance(kind, package.Image)]
    wanted = image or (there[0] if len(there) == 1 else "image")
    if wanted not in there:
        columns = tuple(there or part.features)
        raise MissingColumnError(
            table=name, name=wanted, columns=columns, option="data.image", key=("data", "image")
        )
    return wanted


def _with_column(package: Any, answer: Answer, part: Any, table: str) -> Answer:
    """Return an answer whose columns are there."""
    columns = answer.columns
    if columns == ("label",) and "label" not in part.features:
        of_classes = [
            n for n, kind in part.features.items() if isinstance(kind, package.ClassLabel)
        ]
        columns = tuple(of_classes) if len(of_classes) == 1 else columns
    for name in columns:
        if name not in part.features:
            there = tuple(part.features)
            key = tuple(answer.option.split("."))
            raise MissingColumnError(
                table=table, name=name, columns=there, option=answer.option, key=key
            )
    return Answer(answer.task, columns, answer.option)


def _said(part: Any, answers: Mapping[str, Answer], place: str) -> dict[str, list[Any]] | None:
    """Read what all rows say, by output; None where a split is published without answers."""
    found: dict[str, list[Any]] = {}
    for name, answer in answers.items():
        columns = [list(part[column]) for column in answer.columns]
        kinds = [part.features[column] for column in answer.columns]
        rows = list(zip(*columns, strict=True))
        if all(value in (None, -1) for row in rows for value in row):
            return None
        wrong: list[TLCompileError] = []
        found[name] = []
        for number, row in enumerate(rows):
            try:
                found[name].append(_value(answer, row, kinds))
            except (TypeError, ValueError):
                wrong.append(_bad_row(answer, number, row, place))
        raise_problems(wrong[:SHOWN])
    return found


def _value(answer: Answer, row: Sequence[Any], kinds: Sequence[Any]) -> Any:
    """Return what one row says, as `answers.as_tensor` wants it.

    Raises:
        TypeError, ValueError: It says nothing.
    """
    if answer.task in ("classification", "binary"):
        return _class(row[0], kinds[0])
    if answer.task == "regression":
        numbers = tuple(map(float, row))
        if not all(map(math.isfinite, numbers)):
            raise ValueError
        return numbers
    if len(row) > 1:
        if not all(value in (0, 1) for value in row):
            raise ValueError
        return tuple(map(float, row))
    if isinstance(row[0], str):
        raise TypeError  # its letters are no labels
    inner = getattr(kinds[0], "feature", kinds[0])
    return frozenset(_class(value, inner) for value in row[0])


def _class(value: Any, kind: Any) -> str:
    if value is None or value == "":
        raise ValueError
    names = getattr(kind, "names", None)
    if names is None:
        return str(value)
    if value < 0:
        raise ValueError
    return str(names[value])


def _bad_row(answer: Answer, number: int, row: Sequence[Any], place: str) -> BadCellError:
    wanted = {"regression": "finite numbers", "multilabel": "a list of labels, or 0 and 1"}
    return BadCellError(
        column=answer.columns[0],
        problem=f"row {number} of {place} has no answer",
        found=repr(row[0] if len(row) == 1 else row),
        wanted=wanted.get(answer.task, "a class"),
        advice=f"name another column: {answer.option}",
    )


def _names(answer: Answer, part: Any, train: Sequence[Any]) -> tuple[str, ...]:
    kind = part.features[answer.columns[0]]
    own = getattr(kind, "names", None) or getattr(getattr(kind, "feature", None), "names", None)
    if answer.task == "regression" or len(answer.columns) > 1 or not own:
        return class_names(answer, train)
    return tuple(own)


def _images(part: Any, column: str, name: str, channels: int, package: Any) -> Samples:
    stored = part.select_columns([column]).cast_column(column, package.Image(decode=False))
    ids = tuple(f"{name}/{number:06d}" for number in range(len(stored)))

    def fetch(index: int) -> bytes:
        image = stored[index][column] or {}
        data = image.get("bytes")
        return data if data is not None else read_bytes(image.get("path") or ids[index])

    return Samples(
        ids=ids,
        labels=(),
        classes=(),
        fetch=fetch,
        decode=lambda index, data: decode_image(data, ids[index], channels),
    )
