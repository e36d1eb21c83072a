"""What a text in a recipe means (YAML 1.2 core schema), and recipes as text again.

One set of rules for files, overrides and sweeps: `no` is a word, `010` is ten, `1e-3` a number.
A number remembers how it was written, because the vertex `1.10` is not the vertex `1.1`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tlcompile.recipe.nodes import UNWRITABLE, Mapping, Node, Scalar, Sequence

MAX_DIGITS = 400  # a longer number stays text: int() of a long one takes quadratic time

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = frozenset({".nan", ".NaN", ".NAN"})

# A text that needs no quotes: words and vertex names, without anything that YAML could read.
_BARE = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+-]+)*")


class NumberInt(int):
    """An int that knows how it was written."""

    text: str

    def __new__(cls, value: int, text: str) -> NumberInt:
        """Build it from a value and its text."""
        number = super().__new__(cls, value)
        number.text = text
        return number

    def __getnewargs__(self) -> tuple[int, str]:  # type: ignore[override]
        return int(self), self.text


class NumberFloat(float):
    """A float that knows how it was written."""

    text: str

    def __new__(cls, value: float, text: str) -> NumberFloat:
        """Build it from a value and its text."""
        number = super().__new__(cls, value)
        number.text = text
        return number

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.text


Value = None | bool | int | float | str


def resolve(scalar: Scalar) -> Value:
    """Read a scalar by the YAML 1.2 core schema; numbers keep their text."""
    text = scalar.text
    if not scalar.plain:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > MAX_DIGITS:
        return text
    return _number(text)


def _number(text: str) -> int | float | str:
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            return NumberInt(int(text, base), text)
    if _FLOAT.fullmatch(text):
        return NumberFloat(float(text), text)
    if _INFINITY.fullmatch(text):
        return NumberFloat(-math.inf if text[0] == "-" else math.inf, text)
    return NumberFloat(math.nan, text) if text in _NAN else text


def to_data(node: Node) -> Any:
    """Build the dicts, lists and values that a tree means."""
    match node:
        case Mapping():
            return {key: to_data(entry.value) for key, entry in node.items.items()}
        case Sequence():
            return [to_data(item) for item in node.items]
        case Scalar():
            return resolve(node)


def to_yaml(data: Any) -> str:
    """Write data, or a tree, as block YAML that `read_recipe_text` reads back to equal data."""
    if isinstance(data, Mapping | Sequence | Scalar):
        data = to_data(data)
    return "\n".join(_lines(data)) + "\n"


def _lines(data: Any) -> list[str]:
    """Write one value as lines without indentation."""
    lines: list[str] = []
    if isinstance(data, dict) and data:
        for key, value in data.items():
            inner = _lines(value)
            if _is_block(value):
                lines += [f"{_text(key)}:", *(f"  {line}" for line in inner)]
            else:
                lines.append(f"{_text(key)}: {inner[0]}")
        return lines
    if isinstance(data, list | tuple) and data:
        for item in data:
            first, *rest = _lines(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [_value(data)]


def _is_block(data: Any) -> bool:
    return isinstance(data, dict | list | tuple) and len(data) > 0


def _value(data: Any) -> str:
    match data:
        case None:
            return "null"
        case bool():
            return "true" if data else "false"
        case NumberInt() | NumberFloat():
            return data.text
        case float() if not math.isfinite(data):
            return ".nan" if math.isnan(data) else ".inf" if data > 0 else "-.inf"
        case int() | float():
            return repr(data)
        case str():
            return _text(data)
        case dict():
            return "{}"
        case list() | tuple():
            return "[]"
    raise TypeError(f"a recipe holds no {type(data).__name__}")


def _text(text: str) -> str:
    """Write a text bare where it stays a text, else in double quotes."""
    bare = _BARE.fullmatch(text) and isinstance(resolve(Scalar.from_text(text)), str)
    return text if bare else quoted(text)


def quoted(text: str) -> str:
    """Write a text in double quotes: JSON, which YAML reads, with nothing that YAML cannot."""
    return UNWRITABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
