"""What the cells of a table say is to be predicted: read one row, then number all of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tlcompile.errors.base import did_you_mean, listed, one_line

SEPARATOR = ";"  # between the labels of one cell


@dataclass(frozen=True)
class Answer:
    """Columns that one output is to predict.

    Args:
        task: classification, binary, multilabel, regression or segmentation.
        columns: Their names.
        option: The recipe's key that names them, for messages.
    """

    task: str
    columns: tuple[str, ...]
    option: str = "data.target"


class WrongCellError(Exception):
    """One of an answer's cells is wrong; becomes a BadCellError with its place."""

    def __init__(self, position: int, problem: str, wanted: str, advice: str) -> None:
        self.position, self.problem, self.wanted, self.advice = position, problem, wanted, advice


def _class_name(cells: Sequence[str], _root: str) -> str:
    if not cells[0]:
        raise WrongCellError(0, "no label", "the name of a class", "name it, or drop the line")
    return cells[0]


def _label_set(cells: Sequence[str], _root: str) -> frozenset[str]:
    names = [name.strip() for name in cells[0].split(SEPARATOR)] if cells[0] else []
    if "" in names:
        advice = "write red;small, or nothing at all for none of the labels"
        raise WrongCellError(0, "an empty label", "labels with ';' between them", advice)
    return frozenset(names)


def _marks(cells: Sequence[str], _root: str) -> tuple[float, ...]:
    for position, cell in enumerate(cells):
        if cell not in ("0", "1"):
            raise WrongCellError(position, "neither 0 nor 1", "0 or 1", "write 1 for yes, 0 for no")
    return tuple(map(float, cells))


def _numbers(cells: Sequence[str], _root: str) -> tuple[float, ...]:
    return tuple(_number(position, cell) for position, cell in enumerate(cells))


def _number(position: int, cell: str) -> float:
    try:
        value = float(cell.replace("_", "?"))  # Python reads 1_000; a spreadsheet does not
    except ValueError:
        value = math.nan
    if not abs(value) <= torch.finfo(torch.float32).max:  # nan, too
        advice = "write it with a point, as 3.5, or drop the line"
        raise WrongCellError(position, "no number", "a finite number", advice)
    return value


def _mask(cells: Sequence[str], root: str) -> str:
    path = os.path.join(root, cells[0])
    if not cells[0] or not os.path.isfile(path):
        advice = "mend the path: it is looked for from data.folder on"
        raise WrongCellError(0, "no such mask", f"a file: {path}", advice)
    return path


_READ: MappingProxyType[str, Callable[[Sequence[str], str], Any]] = MappingProxyType(
    {
        "classification": _class_name,
        "binary": _class_name,
        "multilabel": _marks,
        "regression": _numbers,
        "segmentation": _mask,
    }
)


def read_answer(answer: Answer, cells: Sequence[str], root: str) -> Any:
    """Read what one row says; of a multilabel answer in one column, the set of its labels.

    Raises:
        WrongCellError: A cell says nothing, or what it cannot say.
    """
    cells = [cell.strip() for cell in cells]
    if answer.task == "multilabel" and len(cells) == 1:
        return _label_set(cells, root)
    return _READ[answer.task](cells, root)


def class_names(answer: Answer, train: Sequence[Any]) -> tuple[str, ...]:
    """Return what an output's values are called: the training rows' classes, sorted as text."""
    if answer.task in ("classification", "binary"):
        return tuple(sorted(set(train)))
    if answer.task == "multilabel" and len(answer.columns) == 1:
        return tuple(sorted(frozenset().union(*train)))
    return answer.columns


def unknown_class(answer: Answer, value: Any, names: Sequence[str]) -> WrongCellError | None:
    """Return what is wrong with a row whose class no training row has."""
    found = value if isinstance(value, frozenset) else {value} if isinstance(value, str) else set()
    unknown = sorted(found.difference(names)) if answer.task != "segmentation" else []
    if not unknown:
        return None
    otherwise = "give the class training rows, or drop the line"
    advice = did_you_mean(unknown[0], names, otherwise)
    problem = f"no training row has class '{one_line(unknown[0])}'"
    return WrongCellError(0, problem, listed([one_line(name) for name in names]), advice)


def as_tensor(answer: Answer, values: Sequence[Any], names: Sequence[str]) -> Tensor:
    """Number what rows say.

    Shape:
        out: (N,) int64 of one class a row; (N, C) float32 of several labels; (N, T) of numbers
    """
    place = {name: position for position, name in enumerate(names)}
    if answer.task in ("classification", "binary"):
        return torch.tensor([place[value] for value in values], dtype=torch.int64)
    if answer.task == "multilabel" and len(answer.columns) == 1:
        marks = torch.zeros(len(values), len(names))
        for row, labels in enumerate(values):
            marks[row, [place[label] for label in labels]] = 1
        return marks
    return torch.tensor(values, dtype=torch.float32).reshape(len(values), len(names))
