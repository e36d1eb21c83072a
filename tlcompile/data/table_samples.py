"""Find labelled images through a CSV: one row an image. Opens no image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tlcompile.data.answers import (
    Answer,
    WrongCellError,
    as_tensor,
    class_names,
    read_answer,
    unknown_class,
)
from tlcompile.data.folder import OTHER_NAMES, file_samples
from tlcompile.data.samples import Samples
from tlcompile.data.table import Table, read_table, uneven
from tlcompile.errors.base import Span, TLCompileError, one_line, raise_problems
from tlcompile.errors.tables import BadCellError, ManyBadCellsError, UnreadableTableError

SPLITS = ("train", "val", "test")
SHOWN = 20  # wrong places; a screen
_MEANT = {other: split for split, others in OTHER_NAMES.items() for other in others}


def scan_table(
    path: str,
    answers: Mapping[str, Answer],
    *,
    image: str,
    split: str | None,
    root: str,
    channels: int,
    say: Callable[[str], None],
) -> dict[str, Samples]:
    """Find the splits of a table, their images and what is to be predicted.

    Args:
        path: The CSV.
        answers: What to predict, by output; of one output alone by any name.
        image: Column of the images' paths.
        split: Column of train, val and test; None: one split, "all".
        root: Folder from which relative paths go on.
        channels: 3 for RGB, 1 for grey.
        say: Takes a line about rows that need a look.

    Returns:
        Samples by split. Classes are those of the training rows, sorted as text; other splits may
        lack some.

    Raises:
        UnreadableTableError: The file is no table.
        MissingColumnError: A column is not there.
        BadCellError, Problems: Rows are wrong; all of them, each with line and column.
    """
    table = read_table(path)
    torn = uneven(table)
    rows = _Rows(_whole_rows(table), root, answers)
    if rows.table.rows:
        rows.read(table.column(image, "data.image"), split)
    if torn or not {"all", "train"} & set(rows.splits):
        rows.refuse([*torn, *rows.wrong])  # which classes there are is not known
    names = {name: rows.names(name) for name in answers}
    rows.refuse(rows.wrong)
    if rows.repeated:
        say(f"{path}: {rows.repeated:,} rows repeat an earlier one; they count twice")
    found = {}
    for word in SPLITS if split else ("all",):
        if chosen := [row for row, other in enumerate(rows.splits) if other == word]:
            found[word] = rows.samples(chosen, names, channels)
            _say_without_labels(found[word], answers, path, say)
    _refuse_label_without_rows(next(iter(found.values())), answers, path)
    return found


def _whole_rows(table: Table) -> Table:
    """Return a table without the rows that are longer or shorter than the header."""
    whole = [row for row, cells in enumerate(table.rows) if len(cells) == len(table.header)]
    rows = tuple(table.rows[row] for row in whole)
    return replace(table, rows=rows, lines=tuple(table.lines[row] for row in whole))


@dataclass
class _Rows:
    """What the rows say, and what is wrong with them."""

    table: Table
    root: str
    answers: Mapping[str, Answer]
    wrong: list[TLCompileError] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)  # None where the cell is wrong
    repeated: int = 0

    def read(self, image: int, split: str | None) -> None:
        """Read every cell that counts; note what is wrong with it."""
        at = {name: self._columns(answer) for name, answer in self.answers.items()}
        fold = None if split is None else self.table.column(split, "data.split.column")
        if fold is not None and not any(_names_split(cells[fold]) for cells in self.table.rows):
            advice = "name another column, or drop data.split.column: a share is drawn for val then"
            self._bad(0, fold, "no row says train, val or test", "the split of each row", advice)
            return
        for row, cells in enumerate(self.table.rows):
            self.splits.append("all" if fold is None else self._split(row, fold, cells[fold]))
            for name, columns in at.items():
                self.values.setdefault(name, []).append(self._answer(row, name, columns))
            self.paths.append(self._path(row, image, cells[image]))
        self._compare_repeated(image)
        if fold is not None and "train" not in self.splits:
            self._bad(0, fold, "no row is for training", "train in at least one row", "write train")

    def _columns(self, answer: Answer) -> list[int]:
        return [self.table.column(name, answer.option) for name in answer.columns]

    def _path(self, row: int, column: int, cell: str) -> str:
        path = os.path.normpath(os.path.join(self.root, cell)) if cell else ""
        if not cell:
            self._bad(row, column, "no path", "the path of an image", "name it, or drop the line")
        elif "\0" in path or not os.path.isfile(path):
            wanted = f"a file: {one_line(path, 400)}"
            advice = "mend the path, or the folder from which it goes on: data.folder"
            self._bad(row, column, "no such image", wanted, advice)
        return path

    def _split(self, row: int, column: int, cell: str) -> str:
        word = cell.strip()
        if word not in SPLITS:
            meant = _MEANT.get(word.lower(), "train")
            problem = f"no split '{one_line(word)}'" if word else "no split"
            self._bad(row, column, problem, "train, val or test", f"write {meant}")
        return word

    def _answer(self, row: int, name: str, columns: Sequence[int]) -> Any:
        cells = [self.table.rows[row][column] for column in columns]
        try:
            return read_answer(self.answers[name], cells, self.root)
        except WrongCellError as error:
            self._wrong(row, columns, error)
            return None

    def _compare_repeated(self, image: int) -> None:
        """Refuse an image that two rows give other answers, or another split."""
        first: dict[str, int] = {}
        for row, path in enumerate(self.paths):
            earlier = first.setdefault(path, row)
            if earlier == row or not path:
                continue
            self.repeated += 1
            said = [self.splits, *self.values.values()]
            if any(one[row] != one[earlier] for one in said):
                problem = f"the same image as in line {self.table.lines[earlier]}, with other words"
                wanted = "one row an image, or rows that agree"
                self._bad(row, image, problem, wanted, "drop one of the two lines")

    def names(self, name: str) -> tuple[str, ...]:
        """Return an output's classes; note rows with a class that no training row has."""
        answer, values = self.answers[name], self.values[name]
        word = "all" if "all" in self.splits else "train"
        train = [v for v, s in zip(values, self.splits, strict=True) if s == word and v is not None]
        names = class_names(answer, train)
        columns = self._columns(answer)
        for row, value in enumerate(values):
            if self.splits[row] != word and value is not None:
                error = unknown_class(answer, value, names)
                if error is not None:
                    self._wrong(row, columns, error)
        return names

    def samples(
        self, chosen: list[int], names: Mapping[str, tuple[str, ...]], channels: int
    ) -> Samples:
        """Make samples of some rows."""
        paths = tuple(self.paths[row] for row in chosen)
        said = {name: [values[row] for row in chosen] for name, values in self.values.items()}
        return labelled(file_samples(paths, (), (), channels), self.answers, said, names)

    def refuse(self, wrong: list[TLCompileError]) -> None:
        """Raise what is wrong, in the order of the file; of very much, the beginning."""
        rest = len(wrong) - SHOWN
        if rest > 0:
            wrong = sorted(wrong, key=lambda error: error.where.line if error.where else 0)[:SHOWN]
            last = wrong[-1].where
            wrong.append(
                ManyBadCellsError(
                    path=self.table.path, shown_first=SHOWN, count=rest + SHOWN, where=last
                )
            )
        raise_problems(wrong)

    def _wrong(self, row: int, columns: Sequence[int], error: WrongCellError) -> None:
        self._bad(row, columns[error.position], error.problem, error.wanted, error.advice)

    def _bad(self, row: int, column: int, problem: str, wanted: str, advice: str) -> None:
        self.wrong.append(
            BadCellError(
                column=self.table.header[column],
                problem=problem,
                found=f"'{self.table.rows[row][column]}'",
                wanted=wanted,
                advice=advice,
                where=self.table.where(row, column),
            )
        )


def _names_split(cell: str) -> bool:
    """Tell whether a cell is a split's name, or another word for one."""
    return cell.strip() in SPLITS or cell.strip().lower() in _MEANT


def labelled(
    images: Samples,
    answers: Mapping[str, Answer],
    said: Mapping[str, Sequence[Any]],
    names: Mapping[str, tuple[str, ...]],
) -> Samples:
    """Give samples what their rows say.

    Args:
        images: Without labels.
        answers: What to predict, by output.
        said: What each row says, by output.
        names: Classes by output.
    """
    if len(answers) > 1:
        tensors = {name: as_tensor(answers[name], said[name], names[name]) for name in answers}
        return replace(images, values=tensors, names=dict(names))
    ((name, answer),) = answers.items()
    if answer.task == "segmentation":
        return replace(images, masks=tuple(said[name]))
    tensor = as_tensor(answer, said[name], names[name])
    if answer.task in ("multilabel", "regression"):
        return replace(images, classes=names[name], values=tensor)
    return replace(images, classes=names[name], labels=tuple(tensor.tolist()))


def _say_without_labels(
    samples: Samples, answers: Mapping[str, Answer], path: str, say: Callable[[str], None]
) -> None:
    for name, answer in answers.items():
        values = samples.values[name] if isinstance(samples.values, Mapping) else samples.values
        if answer.task == "multilabel" and values is not None:
            without = int((values.sum(1) == 0).sum())
            if without:
                say(f"{path}: {without:,} of {len(values):,} images have none of the labels")


def _refuse_label_without_rows(samples: Samples, answers: Mapping[str, Answer], path: str) -> None:
    """Refuse a label of several that no training row has: there is nothing to learn it from."""
    for name, answer in answers.items():
        values = samples.values[name] if isinstance(samples.values, Mapping) else samples.values
        if answer.task != "multilabel" or values is None:
            continue
        names = samples.names.get(name, samples.classes)
        absent = [label for label, count in zip(names, values.sum(0), strict=True) if not count]
        if absent:
            raise UnreadableTableError(
                path=path,
                reason=f"no training row has label {', '.join(absent)}",
                wanted="at least one training row a label",
                advice=f"leave it out of {answer.option}",
                where=Span(path, 1, 1),
            )
