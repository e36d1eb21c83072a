"""Values as they are typed in one line: `layer3`, `'a, b'`, `[1, 2]`, `{name: adamw, lr: 1e-3}`.

The values of an override, and the text in which one value travels through Hydra and back. Like
YAML's flow style, but a ':' needs no space after it and `*`, `&`, `!`, `#` are ordinary text.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from tlcompile.errors.base import Span
from tlcompile.errors.recipe import OverrideSyntaxError, RecipeError, RecipeTooBigError
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

    def fail(self, reason: str) -> NoReturn:
        """Refuse the text, at the current place."""
        raise OverrideSyntaxError(text=self.text, reason=reason, where=self.span(self.at))

    def _peek(self) -> str:
        """Step over blanks and return the next character, '' at the end."""
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
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
