"""Values as they are typed in one line: `layer3`, `'a, b'`, `[1, 2]`, `{name: adamw, lr: 1e-3}`.

The values of an override, and the text in which one value travels through Hydra and back. Like
YAML's flow style, but a ':' needs no space after it and `*`, `&`, `!`, `#` are ordinary text.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from tlcompile.errors.base import Span
from tlcompile.errors.recipe import QUOTE_IT, OverrideSyntaxError, RecipeError, RecipeTooBigError
from tlcompile.recipe.nodes import (
    MAX_LEVELS,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    key_problem,
    text_problem,
)
from tlcompile.recipe.scalars import quoted, resolve

_SINGLE = re.compile(r"'((?:[^']|'')*)'")
_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN = re.compile(r"[^,\[\]{}]*")
_PLAIN_KEY = re.compile(r"[^:,\[\]{}]*")

MAX_RANGE = 100_000  # points of one range; a sweep of that many trainings is a slip
_FUNCTION = re.compile(r"([A-Za-z_]\w*)\(")
_EXAMPLES = {
    "choice": "choice(a, b)",
    "range": "range(1, 10, 2)",
    "interval": "interval(0.001, 0.1)",
}
# As Hydra reads numbers: no leading zero.
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,2})?")


class FlowReader:
    """Reads values out of `text` from `at` on; `where` is the place of the text's first character."""

    def __init__(self, text: str, at: int, where: Span) -> None:
        self.text = text
        self.at = at
        self.where = where

    def one(self) -> Node:
        """Read a value that fills the rest of the text."""
        value = self._value(0)
        if self._peek():
            self.fail(f"'{self._peek()}' follows the value")
        return value

    def several(self) -> tuple[Node, ...]:
        """Read values with commas between, up to the end of the text; an empty text is one null."""
        values = [self._value(0)]
        while self._peek() == ",":
            self.at += 1
            values.append(self._value(0))
        if self._peek():
            self.fail(f"'{self._peek()}' follows the value")
        if len(values) > 1:
            for value in values:
                self._check_not_empty(value)
        return tuple(values)

    def span(self, at: int) -> Span:
        """Return the place of a character of the text."""
        return Span(self.where.file, self.where.line, self.where.column + at)

    def fail(
        self, reason: str, advice: str = QUOTE_IT, word: str = "", known: tuple[str, ...] = ()
    ) -> NoReturn:
        """Refuse the text, at the current place."""
        raise OverrideSyntaxError(
            text=self.text,
            reason=reason,
            advice=advice,
            word=word,
            known=known,
            where=self.span(self.at),
        )

    def skip_blanks(self) -> None:
        """Step over blanks."""
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    def _peek(self) -> str:
        """Step over blanks and return the next character, '' at the end."""
        self.skip_blanks()
        return self.text[self.at : self.at + 1]

    def _value(self, level: int) -> Node:
        first, start = self._peek(), self.at
        if first in ("[", "{") and level == MAX_LEVELS:
            raise RecipeTooBigError(
                what="levels", found=level + 1, limit=MAX_LEVELS, where=self.span(start)
            )
        match first:
            case "[":
                return self._sequence(level + 1)
            case "{":
                return self._mapping(level + 1)
            case "'" | '"':
                return self._checked(Scalar(self._quoted(first), False, self.span(start)))
        return self._checked(Scalar(self._plain(_PLAIN), True, self.span(start)))

    def _checked(self, scalar: Scalar) -> Scalar:
        _raise(text_problem(scalar.text, scalar.span))
        return scalar

    def _plain(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        text = found[0] if found else ""
        self.at += len(text)
        return text.strip(" \t")

    def _quoted(self, quote: str) -> str:
        found = (_SINGLE if quote == "'" else _DOUBLE).match(self.text, self.at)
        if not found:
            self.fail(f"the quote {quote} is not closed")
        try:
            text = (
                found[1].replace("''", "'") if quote == "'" else json.loads(found[0], strict=False)
            )
        except json.JSONDecodeError:
            self.fail("the double-quoted text has an unknown escape")
        self.at = found.end()
        return str(text)

    def _check_not_empty(self, value: Node) -> None:
        if value == Scalar("", True):
            self.at = value.span.column - self.where.column
            self.fail("a value is missing beside a comma")

    def _sequence(self, level: int) -> Sequence:
        node = Sequence([], self.span(self.at))
        self.at += 1
        if self._peek() == "]":
            self.at += 1
            return node
        while True:
            node.items.append(self._value(level))
            self._check_not_empty(node.items[-1])
            if self._comma_or("]"):
                return node

    def _mapping(self, level: int) -> Mapping:
        node = Mapping({}, self.span(self.at))
        self.at += 1
        if self._peek() == "}":
            self.at += 1
            return node
        while True:
            key, where = self._key(node)
            node.items[key] = Entry(where, self._value(level))
            if self._comma_or("}"):
                return node

    def _key(self, node: Mapping) -> tuple[str, Span]:
        first, start = self._peek(), self.at
        key = self._quoted(first) if first and first in "'\"" else self._plain(_PLAIN_KEY)
        where = self.span(start)
        if self._peek() != ":":
            self.fail("a ':' is missing after a key")
        _raise(key_problem(key, where, at_top=False))
        if key in node.items:
            self.at = start
            self.fail(f"key '{key}' is given twice")
        self.at += 1
        return key, where

    def _comma_or(self, end: str) -> bool:
        """Step over a comma or the closing bracket; say whether it was the bracket."""
        found = self._peek()
        if found not in (",", end) or not found:
            self.fail(f"'{end}' is missing" + (f" before '{found}'" if found else ""))
        self.at += 1
        return found == end


def read_values(text: str, at: int, where: Span) -> tuple[tuple[Node, ...], str]:
    """Read what follows the `=` of an override.

    Returns:
        The values, several in a sweep, and ''; or no value and the text of a range(...) or an
        interval(...), which stands for numbers that only a sweeper chooses.
    """
    reader = FlowReader(text, at, where)
    reader.skip_blanks()
    _raise(text_problem(text[reader.at :], reader.span(reader.at)))
    function = _FUNCTION.match(text, reader.at)
    if not function:
        return reader.several(), ""
    name, end = function[1], text.rstrip()
    if name not in _EXAMPLES:
        reader.fail(f"there is no sweep function '{name}'", word=name, known=tuple(_EXAMPLES))
    if not end.endswith(")"):
        reader.fail("a ')' is missing", _EXAMPLES[name])
    if name == "choice" and not end[function.end() : -1].strip():
        reader.fail("choice() holds no value", _EXAMPLES[name])
    if name == "choice":
        return FlowReader(end[:-1], function.end(), where).several(), ""
    _check_numbers(reader, name, end[function.end() : -1])
    return (), end[reader.at :]


def _check_numbers(reader: FlowReader, name: str, inner: str) -> None:
    """Refuse a range that Hydra would answer with a traceback, or with no point at all."""
    example = _EXAMPLES[name]
    words = [word.strip() for word in inner.split(",")]
    if not all(_NUMBER.fullmatch(word) and len(word) < 100 for word in words):
        reader.fail(f"{name}(...) takes numbers", example)
    numbers = [float(word) for word in words]
    if name == "interval":
        if len(numbers) != 2 or numbers[0] >= numbers[1]:
            reader.fail("interval(...) takes its two ends, the smaller first", example)
        return
    if len(numbers) > 3:
        reader.fail("range(...) takes a start, a stop and a step", example)
    start, stop, step = [0.0, *numbers, 1.0] if len(numbers) == 1 else [*numbers, 1.0][:3]
    points = (stop - start) / step if step else 0.0
    if points <= 0:
        reader.fail("the range holds no value", example)
    if points > MAX_RANGE:
        raise RecipeTooBigError(
            what="values in a sweep",
            found=int(points),
            limit=MAX_RANGE,
            where=reader.span(reader.at),
        )


def _raise(problem: RecipeError | None) -> None:
    if problem:
        raise problem


def to_flow(node: Node) -> str:
    """Write a value in one line, so that `FlowReader.one` reads the same tree."""
    match node:
        case Sequence():
            return f"[{', '.join(map(_item, node.items))}]"
        case Mapping():
            pairs = (f"{_key_text(key)}: {to_flow(e.value)}" for key, e in node.items.items())
            return f"{{{', '.join(pairs)}}}"
        case Scalar():
            return _scalar_text(node)


def _item(node: Node) -> str:
    return "null" if node == Scalar("", True) else to_flow(node)  # `[, ]` is refused


def _key_text(key: str) -> str:
    bare = _PLAIN_KEY.fullmatch(key) and key == key.strip(" \t") and key[0] not in "'\""
    return key if bare else quoted(key)


def _scalar_text(scalar: Scalar) -> str:
    """Write a scalar; a plain text of a file that one line cannot hold plain gets quotes."""
    text = scalar.text
    bare = _PLAIN.fullmatch(text) and text == text.strip(" \t") and text[:1] not in ("'", '"')
    if scalar.plain and (bare or not isinstance(resolve(scalar), str)):
        return text
    return quoted(text)
