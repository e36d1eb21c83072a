r"""Overrides as text for Hydra's command line, and back, exact to the character.

Hydra only parses, multiplies (sweeps) and launches; its composed config is never read. So each
value travels as one quoted text, `++freeze.upto='3.10'`, in which Hydra sees no number.

Keys stay as typed where Hydra's grammar allows. A part that it does not allow becomes `$` and
the part with each odd character as `$hex$`; a part in brackets `_$` and the same; a key that
comes a second time ends in `$$2`, because Hydra keeps one value a key. Nested keys
(`++a='x' ++a.b='y'`) need no care: Hydra replaces the text by a mapping, and nobody reads it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tlcompile.errors.base import Span
from tlcompile.errors.recipe import OverrideSyntaxError
from tlcompile.recipe.flow import FlowReader, to_flow
from tlcompile.recipe.overrides import COMMAND_LINE, KeyPart, Override, checked_key

_DELETED = "{~}"  # no value: the grammar of values refuses it
_LEGAL_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|0|[1-9][0-9]*")
_ODD = re.compile(r"[^A-Za-z0-9_-]")
_REPEATED = re.compile(r"\$\$[0-9]+\Z")
_QUOTED = re.compile(r"'.*'", re.DOTALL)
_ARGUMENT = re.compile(r"\+{0,2}([^=]*)=(.*)", re.DOTALL)


def to_hydra_arguments(overrides: Iterable[Override]) -> list[str]:
    """Write all overrides of a command line; a repeated key keeps each of its values."""
    seen: Counter[str] = Counter()
    arguments = []
    for override in overrides:
        key = _hydra_key(override)
        seen[key] += 1
        again = f"$${seen[key]}" if seen[key] > 1 else ""
        arguments.append(f"++{key}{again}={_hydra_value(override)}")
    return arguments


def from_hydra(text: str, typed: Sequence[Override] = ()) -> Override:
    """Read one argument back, after Hydra has chosen one value of each sweep.

    Args:
        text: As in the launcher's `job_overrides` or in `hydra.overrides.task`.
        typed: The overrides as the user typed them: the one that this text comes from lends its
            text and its places, so that an error points at the user's own command line.

    Raises:
        OverrideSyntaxError: It is not a text that `to_hydra_arguments` or a sweeper writes.
    """
    where = Span(COMMAND_LINE, 1, 1)
    argument = _ARGUMENT.fullmatch(text)
    key = argument and _typed_key(_REPEATED.sub("", argument[1]))
    if not argument or not key:
        reason = "it is not a text that tlcompile writes"
        raise OverrideSyntaxError(text=text, reason=reason, where=where)
    key = checked_key(text, key, where)
    # Without quotes it is a number of range(...) or interval(...), written by Hydra's sweeper.
    payload = _unquote(argument[2]) if _QUOTED.fullmatch(argument[2]) else argument[2]
    if payload == _DELETED:
        return _as_typed(Override(text, True, key), typed)
    value = FlowReader(payload, 0, where).one()
    return _as_typed(Override(text, False, key, (value,)), typed)


def _as_typed(override: Override, typed: Sequence[Override]) -> Override:
    """Lend an override the text and the places of the typed one that it comes from."""
    for other in typed:
        if (other.key, other.delete) != (override.key, override.delete):
            continue
        same = tuple(value for value in other.values if (value,) == override.values)
        if same or other.delete or other.function:
            return replace(other, values=same or override.values, function="")
    return override


def _hydra_value(override: Override) -> str:
    if override.delete:
        return quote(_DELETED)
    return override.function or ",".join(quote(to_flow(value)) for value in override.values)


def _hydra_key(override: Override) -> str:
    parts = override.parts
    alone = len(parts) == 1  # Hydra knows `a.3` but not `3`
    return ".".join(_hydra_part(part, alone) for part in parts)


def _hydra_part(part: KeyPart, alone: bool) -> str:
    legal = _LEGAL_PART.fullmatch(part.text) and not (alone and part.text.isdigit())
    if legal and not part.whole:
        return part.text
    body = _ODD.sub(lambda odd: f"${ord(odd[0]):x}$", part.text)
    return f"{'_$' if part.whole else '$'}{body}"


def _typed_key(key: str) -> str:
    """Undo `_hydra_key`; '' for a key that it did not write."""
    try:
        return "".join(map(_typed_part, key.split("."))).removeprefix(".")
    except ValueError:  # no number between two `$`
        return ""


def _typed_part(part: str) -> str:
    whole, odd, body = part.partition("$")
    if not odd:
        return f".{part}"
    pieces = body.split("$")  # every second one is the number of a character
    pieces[1::2] = [chr(int(piece, 16)) for piece in pieces[1::2]]
    name = "".join(pieces)
    return f"[{name}]" if whole else f".{name}"


def quote(text: str) -> str:
    r"""Quote for Hydra's grammar: only backslashes before a quote count, `\'` is a quote."""
    inner = re.sub(r"(\\*)'", r"\1\1\\'", text)
    inner = re.sub(r"(\\+)\Z", r"\1\1", inner)
    return f"'{inner}'"


def _unquote(text: str) -> str:
    inner = re.sub(r"(\\+)\Z", lambda end: end[1][::2], text[1:-1])
    return re.sub(r"(\\+)'", lambda found: found[1][1::2] + "'", inner)
