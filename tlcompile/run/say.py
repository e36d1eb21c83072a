"""What goes to the terminal: lines, tables and progress bars; errors go to stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

_PREFIXES = ("", "k", "M", "G", "T", "P")


def say(text: str) -> None:
    """Print one line as it is, at once."""
    print(text, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, after its title where it has one."""
    say("\n".join([*filter(None, [title]), *table_lines(columns, rows)]))


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a table as lines; numbers are right-aligned, and no cell is cut or folded."""
    cells = [[str(cell) for cell in row] for row in rows]
    turned = list(zip(columns, *cells, strict=True))
    widths = [max(map(len, column)) for column in turned]
    right = [all(map(_is_number, column[1:])) for column in turned]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(columns), ["-" * width for width in widths], *cells]
    ]


def _is_number(cell: str) -> bool:
    text = cell.replace(",", "").removesuffix("%").strip()
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def show_number(number: float, unit: str = "") -> str:
    """Show a count in three digits: '1.82 G', '900', '12 kB'."""
    power = 0
    while number >= 999.5 and power < len(_PREFIXES) - 1:
        number, power = number / 1000, power + 1
    digits = f"{number:.3g}" if number < 1000 else f"{number:.0f}"
    return f"{digits} {_PREFIXES[power]}{unit}".rstrip()


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing elsewhere; yields what advances it."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    # Here, because most commands draw no bar: 25 ms of every `check`.
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    parts = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda count: bar.advance(task, count)
