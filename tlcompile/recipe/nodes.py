"""The recipe as a tree of text with places, and what any text in it may hold.

Knows nothing of YAML, numbers or sections: a value is the text that was written, and where.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from tlcompile.errors.base import RecipeKey, Span
from tlcompile.errors.recipe import (
    ForbiddenCharacterError,
    ForbiddenYamlError,
    NotOverridableError,
    RecipeError,
    RecipeSyntaxError,
    RecipeTooBigError,
)

MAX_LEVELS = 64  # mappings and lists inside each other; the deepest real recipe has 6
MAX_KEY = 400  # characters; PyYAML reads a key of at most 1,024, quotes and escapes included
NOWHERE = Span("(python)", 1, 1)

# Hydra's own words: a recipe names layers and optimizers, never code.
HYDRA_WORDS = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})

# Neither YAML 1.2 nor a terminal line carries these as they are; as escapes some may come through.
UNWRITABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True)
class Scalar:
    """One value as it was written; `plain` is without quotes, so it may be a number."""

    text: str
    plain: bool
    span: Span = field(default=NOWHERE, compare=False)

    @classmethod
    def from_text(cls, text: str, span: Span = NOWHERE) -> Scalar:
        """Build the scalar that an unquoted `text` in a recipe would be."""
        return cls(text, True, span)


@dataclass(frozen=True)
class Sequence:
    """A list, in order."""

    items: list[Node]
    span: Span = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Entry:
    """One value of a mapping, and where its key stands."""

    key_span: Span = field(compare=False)
    value: Node


@dataclass(frozen=True)
class Mapping:
    """Values by key; keys are text. Never changed in place: an edit builds a new one."""

    items: dict[str, Entry]
    span: Span = field(default=NOWHERE, compare=False)


Node = Scalar | Sequence | Mapping


def locate(root: Node, key: RecipeKey, want_key: bool = False) -> Span:
    """Find the place of a path, or of the deepest part of it that the tree has.

    Elements that are not in the tree are stepped over: Pydantic puts the tag of a union into
    its paths, and a missing key is reported at its parent.

    Args:
        root: The whole recipe.
        key: Keys and indices from the root on.
        want_key: Return the place of the last key itself instead of its value's.
    """
    node, span = root, root.span
    for element in key:
        if isinstance(node, Mapping) and str(element) in node.items:
            entry = node.items[str(element)]
            node = entry.value
            span = entry.key_span if want_key else node.span
        elif isinstance(node, Sequence) and element in range(len(node.items)):
            node = node.items[int(element)]
            span = node.span
    return span


def text_problem(text: str, where: Span) -> RecipeError | None:
    """Return what is wrong with a value's text, if anything; escapes are already read."""
    if "${" in text:
        return ForbiddenYamlError(what="interpolation", found=text, where=where)
    for character in text:
        if character == "\0" or "\ud800" <= character <= "\udfff":
            return ForbiddenCharacterError(character=character, within="text", where=where)
    return None


def key_problem(text: str, where: Span, at_top: bool) -> RecipeError | None:
    """Return what is wrong with a key, if anything; `at_top` is a section's name."""
    if not text:
        return RecipeSyntaxError(problem="key is empty", where=where)
    if len(text) > MAX_KEY:
        return RecipeTooBigError(
            what="characters in a key", found=len(text), limit=MAX_KEY, where=where
        )
    for character in text:
        # Cc controls, Cf bidi and zero width, Zl and Zp line ends, Cs halves of a pair
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs")
        if hidden or UNWRITABLE.match(character):
            return ForbiddenCharacterError(character=character, within="key", where=where)
    if text in HYDRA_WORDS or (at_top and text.startswith("hydra")):
        return NotOverridableError(name=text, where=where)
    return text_problem(text, where)
