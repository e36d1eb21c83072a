"""Read a CSV file: cells as text, each with its place in the file. Knows nothing of images."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from functools import cached_property

from tlcompile.data.images import read_bytes
from tlcompile.errors.base import Span, TLCompileError, nearest
from tlcompile.errors.data import UnreadableImagesError, quoted
from tlcompile.errors.tables import BadCellError, MissingColumnError, UnreadableTableError


@dataclass(frozen=True)
class Table:
    """A header and rows of the same length.

    Args:
        path: Of the file.
        text: What stands in it.
        header: Names of the columns.
        rows: Cells of each row; empty lines are no rows.
        lines: Line of each row, from 1.
    """

    path: str
    text: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str, option: str) -> int:
        """Return the position of a column that the recipe names by `option`.

        Raises:
            MissingColumnError: There is none of that name.
        """
        if name not in self.header:
            key = tuple(option.split("."))
            raise MissingColumnError(
                table=self.path, name=name, columns=self.header, option=option, key=key
            )
        return self.header.index(name)

    def where(self, row: int, column: int) -> Span:
        """Return the place of a cell, for a message."""
        line = self.lines[row]
        return Span(self.path, line, _start(self._physical[line - 1], column))

    @cached_property
    def _physical(self) -> list[str]:
        return list(io.StringIO(self.text, newline=""))


def read_table(path: str) -> Table:
    """Read a CSV: UTF-8, with or without a mark at its beginning, commas, a header line.

    Raises:
        UnreadableTableError: The file is missing, may not be read, is no UTF-8, has broken quotes,
            two columns of a name, no header, or no row.
    """
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[int, tuple[str, ...]]] = []
    try:
        line = 1
        for cells in reader:
            if cells:
                found.append((line, tuple(cells)))
            line = reader.line_num + 1
    except csv.Error as cause:
        raise UnreadableTableError(
            path=path,
            reason=str(cause),
            wanted='cells with quotes or commas in quotes, "like ""this"", of one line"',
            advice=f"mend the quotes in line {line} or before it",
            where=Span(path, line, 1),
        ) from cause
    if len(found) < 2:
        raise UnreadableTableError(
            path=path,
            reason="no row" if found else "nothing",
            wanted="a line with the columns' names, then one line an image",
            advice="write: image,label",
            where=Span(path, 1, 1),
        )
    (_, header), *rows = found
    header = tuple(name.strip() for name in header)
    table = Table(path, text, header, tuple(r for _, r in rows), tuple(n for n, _ in rows))
    _refuse_two_of_a_name(table)
    return table


def uneven(table: Table) -> list[TLCompileError]:
    """Return an error for each row that is longer or shorter than the header."""
    wanted = len(table.header)
    return [
        BadCellError(
            column=table.header[min(len(cells), wanted) - 1],
            problem="the line ends too early" if len(cells) < wanted else "the line goes on",
            found=f"{len(cells)} cells",
            wanted=f"{wanted} cells, as the first line has",
            advice="add or take away commas; put a cell with a comma into quotes",
            where=table.where(row, min(len(cells), wanted) - 1),
        )
        for row, cells in enumerate(table.rows)
        if len(cells) != wanted
    ]


def _text(path: str) -> str:
    try:
        data = read_bytes(path)
    except UnreadableImagesError as cause:
        folder = os.path.dirname(path) or "."
        there = os.listdir(folder) if os.path.isdir(folder) else []
        near = nearest(os.path.basename(path), [n for n in there if n.endswith(".csv")], limit=1)
        raise UnreadableTableError(
            path=path,
            reason=cause.reason(),
            wanted="a CSV file",
            advice=f"did you mean '{os.path.join(os.path.dirname(path), near[0])}'?"
            if near
            else "name the file from the current directory on, or from / on: data.csv",
        ) from cause
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        before = data[: cause.start]
        column = cause.start - (before.rfind(b"\n") + 1) + 1
        copy = f"{path.removesuffix('.csv')}.utf8.csv"
        raise UnreadableTableError(
            path=path,
            reason=f"byte 0x{data[cause.start]:02x}, which is no UTF-8",
            wanted="UTF-8",
            advice=f"say which encoding it has:\niconv -f LATIN1 -t UTF-8 {quoted(path)} > {quoted(copy)}",
            where=Span(path, before.count(b"\n") + 1, column),
        ) from cause


def _refuse_two_of_a_name(table: Table) -> None:
    for position, name in enumerate(table.header):
        if name in table.header[:position]:
            raise UnreadableTableError(
                path=table.path,
                reason=f"two columns '{name}'",
                wanted="a name of its own for each column",
                advice="rename one of the two, or take it away",
                where=Span(table.path, 1, _start(table.text, position)),
            )


def _start(line: str, column: int) -> int:
    """Return where a cell begins, from 1; commas in quotes separate nothing."""
    inside, passed = False, 0
    for position, sign in enumerate(line, start=1):
        if passed == column:
            return position
        inside ^= sign == '"'
        passed += sign == "," and not inside
    return len(line.rstrip("\r\n")) + 1
