"""What every error is: facts in, words out, one form on the screen.

    TLCompileError
    |-- RecipeError   the file or command line is wrong      -> edit the YAML   recipe.py, schema.py
    |-- GraphError    the recipe does not fit the base       -> edit the YAML   graph.py, edits.py
    |-- WeightsError  tensors do not fit or cannot be had    -> pick weights    weights.py
    |-- DataError     images or folders are not as promised  -> mend the data   data.py, archives.py
    |-- RunError      the machine or the run does not fit    -> change the run  run.py, training.py,
    |                                                                           finding.py, ancestry.py
    |-- PassBrokePromiseError  a pass broke its promise      -> we fix it       graph.py
    `-- Problems      several of these at once

The raise gives facts, the class makes words, and tests/test_errors.py renders every class once.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

WIDTH = 110  # columns; a terminal line of a review comment
LIST_LIMIT = 8  # names printed before "... (N in all)"

RecipeKey = tuple[str | int, ...]


@dataclass(frozen=True)
class Span:
    """A place in a recipe or on the command line; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(eq=False, kw_only=True)
class TLCompileError(Exception):
    """The root. `key` is the place in the recipe; `where` is filled in by whoever knows the file."""

    slug: ClassVar[str] = ""
    exit_code: ClassVar[int] = 1

    key: RecipeKey = ()
    where: Span | None = None

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        return {}

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        raise NotImplementedError

    def as_data(self) -> list[dict[str, Any]]:
        """Return every problem in it as plain data; docs/json.md has the keys."""
        facts = self.facts()
        place = self.where
        return [
            {
                "file": place.file if place else None,
                "line": place.line if place else None,
                "column": place.column if place else None,
                "key": list(self.key),
                "slug": self.slug,
                "message": self.headline(),
                "found": facts.get("found"),
                "wanted": facts.get("wanted"),
                "facts": facts,
                "fix": self.fix(),
            }
        ]

    def at(self, where: Span | None) -> TLCompileError:
        """Return the same error with its place; an error that already knows its place keeps it."""
        return self if self.where or where is None else replace(self, where=where)

    def __str__(self) -> str:
        place = str(self.where) if self.where else ".".join(map(str, self.key))
        lines = wrap(f"{place}: " if place else "", f"{self.headline()} [{self.slug}]", "    ")
        rows = {**self.facts(), "fix": self.fix()}
        width = max(map(len, rows)) + 2
        for name, text in rows.items():
            lines += wrap(f"  {name:<{width}}", text, " " * (width + 2))
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only exceptions fail to unpickle without this, and workers send errors by pickle.
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return _rebuild, (type(self), values)


def _rebuild(kind: type[TLCompileError], values: dict[str, Any]) -> TLCompileError:
    return kind(**values)


@dataclass(eq=False, kw_only=True)
class Problems(TLCompileError):  # noqa: N818, it is not one error
    """Several errors at once, in file order; the only error that holds others."""

    slug: ClassVar[str] = "problems"
    exit_code: ClassVar[int] = 2

    errors: tuple[TLCompileError, ...] = ()

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return f"{len(self.errors)} problems"

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        return "mend them one by one; all are listed"

    def as_data(self) -> list[dict[str, Any]]:
        """Return every problem in it as plain data."""
        return [problem for error in self.errors for problem in error.as_data()]

    def at(self, where: Span | None) -> TLCompileError:
        """Return itself: its members have their own places."""
        del where
        return self

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def raise_problems(errors: Iterable[TLCompileError]) -> None:
    """Raise nothing, the one error, or all of them together, in file order."""
    found = sorted(errors, key=_file_order)
    if len(found) == 1:
        raise found[0]
    if found:
        raise Problems(errors=tuple(found))


def _file_order(error: TLCompileError) -> tuple[str, int, int]:
    return (error.where.file, error.where.line, error.where.column) if error.where else ("", 0, 0)


def wrap(first: str, text: str, rest: str) -> list[str]:
    """Fold text to WIDTH columns with a hanging indent; pasted commands keep their own lines."""
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        lines += textwrap.wrap(
            line,
            WIDTH,
            initial_indent=rest if lines else first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [first]
    return lines


def listed(names: Sequence[object], limit: int = LIST_LIMIT) -> str:
    """Join names, cut after `limit` with the count: 'a, b, c, ... (10 in all)'."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"


def nearest(name: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """Return the closest names, best first; a difference in case alone counts as closest."""
    names = list(dict.fromkeys(names))
    same = [other for other in names if other.lower() == name.lower()]
    close = difflib.get_close_matches(name, names, n=limit, cutoff=0.6)
    return list(dict.fromkeys(same + close))[:limit]


def did_you_mean(name: str, names: Iterable[str], otherwise: str) -> str:
    """Word a fix: the nearest name where there is one, else what the caller advises."""
    close = nearest(name, names)
    return f"did you mean '{close[0]}'?" if close else otherwise


def one_line(text: object, limit: int = 80) -> str:
    """Show a value from a file safely: control characters escaped, cut after `limit`."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
