"""The file or the command line is wrong: everything that the user mends by editing text.

RecipeError
|-- RecipeFileError          the file cannot be read
|-- RecipeTooBigError        more bytes or levels than a recipe needs
|-- RecipeSyntaxError        not YAML, or not a mapping
|-- ForbiddenCharacterError  a character that hides or breaks text
|-- ForbiddenYamlError       YAML that a recipe does without: tags, anchors, interpolations, ...
|-- DuplicateKeyError        one key twice in one mapping
|-- NotOverridableError      a key that no recipe and no override may set
|-- OverrideSyntaxError      an argument that is not key=value
|-- OverrideKeyError         an override of something that is not there
`-- CommandLineError         a verb, an option or an argument that the command does not take
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar, Literal

from tlcompile.errors.base import (
    RecipeKey,
    Span,
    TLCompileError,
    did_you_mean,
    listed,
    one_line,
)


class RecipeError(TLCompileError):
    """The recipe, or an override of it, is wrong."""

    exit_code: ClassVar[int] = 2


FileReason = Literal["missing", "directory", "not a file", "unreadable", "not UTF-8"]
_FILE_HEADLINES: dict[FileReason, str] = {
    "missing": "there is no recipe '{}'",
    "directory": "'{}' is a directory, not a recipe",
    "not a file": "'{}' is a device or a pipe, not a file",
    "unreadable": "the recipe '{}' cannot be opened",
    "not UTF-8": "the recipe '{}' is not UTF-8 text",
}


@dataclass(eq=False, kw_only=True)
class RecipeFileError(RecipeError):
    """The recipe cannot be read as text."""

    slug: ClassVar[str] = "recipe-file"

    path: str
    reason: FileReason
    detail: str = ""  # the system's words, or the byte that is wrong
    nearby: tuple[str, ...] = ()  # YAML files beside it, as they would be typed

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return _FILE_HEADLINES[self.reason].format(one_line(self.path))

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        found = {"found": one_line(self.detail)} if self.detail else {}
        beside = [one_line(name) for name in self.nearby]
        return found | ({"beside": listed(beside)} if beside else {})

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        if self.reason == "not UTF-8":
            return "save the file as UTF-8, without a byte order mark"
        if self.reason == "unreadable":
            return "check the permissions of the file and of its folder"
        advice = "name a YAML file; tlcompile init writes a first one"
        return did_you_mean(self.path, self.nearby, advice)


@dataclass(eq=False, kw_only=True)
class RecipeTooBigError(RecipeError):
    """A recipe is a page of text; this is far more, so it is not parsed at all."""

    slug: ClassVar[str] = "recipe-too-big"

    what: Literal["bytes", "levels", "characters in a key", "values in a sweep"]
    found: int
    limit: int

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return f"a recipe holds at most {self.limit:,} {self.what}, got {self.found:,} or more"

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        match self.what:
            case "bytes":
                return "check that this is the recipe and not a data file"
            case "levels":
                return "check the brackets and the indentation"
            case "characters in a key":
                return "check that a ':' or a quote is not missing"
            case "values in a sweep":
                return "take a larger step"


# What PyYAML says (the beginning of it) -> what is wrong, what to do. {} is the text it quotes last.
# The first that fits wins; the lines without "found" or "expected" are our own.
_BACKSLASH = "use single quotes, where a backslash is a backslash"
_SYNTAX: tuple[tuple[str, str, str], ...] = (
    ("nothing", "the recipe is empty", "write at least  base: {model: resnet18}"),
    ("not a mapping", "a recipe is a mapping of sections", "begin with  base: {model: resnet18}"),
    ("key is not text", "a key is a text, not a list or a mapping", "write it as  key: value"),
    ("key is empty", "a ':' has no key before it", "write it as  key: value"),
    ("found character '\\t'", "a tab cannot indent a recipe", "indent with spaces, two a level"),
    ("found character", "a value cannot begin with '{}'", "put the value in quotes"),
    ("could not find expected ':'", "a key has no ':' after it", "write it as  key: value"),
    ("expected ',' or ']'", "a '[' is not closed, or a ',' is missing", "close it with ']'"),
    ("expected ',' or '}'", "a '{{' is not closed, or a ',' is missing", "close it with '}'"),
    ("found unexpected", "a quote is not closed", "close it with the same quote"),
    ("found unknown escape", "a double-quoted text has the unknown escape '\\{}'", _BACKSLASH),
    ("expected escape", "a double-quoted text has an escape with too few digits", _BACKSLASH),
    ("escape beyond", "a double-quoted text has an escape beyond the last character", _BACKSLASH),
    ("expected the node content", "a value is missing", "write the value, or delete the comma"),
    ("sequence entries", "a '- ' stands where no item can begin", "give each item its own line"),
    (
        "mapping values",
        "a ':' stands where no key can begin",
        "quote the value if the ':' belongs to it, else mend the indentation",
    ),
    (
        "expected <block end>",
        "the indentation does not fit the lines above",
        "begin the keys of one mapping in the same column",
    ),
)
_OTHER = ("the YAML cannot be read", "mend the text at this place")


@dataclass(eq=False, kw_only=True)
class RecipeSyntaxError(RecipeError):
    """The text is not YAML, or not a mapping; `problem` is the parser's own sentence."""

    slug: ClassVar[str] = "recipe-syntax"

    problem: str
    opened: Span | None = None  # where the thing begins that goes wrong here

    def _words(self) -> tuple[str, str]:
        for start, headline, fix in _SYNTAX:
            if self.problem.startswith(start):
                quoted = re.findall(r"'(.+?)'", self.problem) or [""]
                return headline.format(one_line(quoted[-1])), fix
        return _OTHER

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return self._words()[0]

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        parser = {"parser": one_line(self.problem)} if self._words() == _OTHER else {}
        return parser | ({"begins": str(self.opened)} if self.opened else {})

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        return self._words()[1]


@dataclass(eq=False, kw_only=True)
class ForbiddenCharacterError(RecipeError):
    """A character that hides text (bidi, zero width) or that no file can carry (NUL, half a pair)."""

    slug: ClassVar[str] = "forbidden-character"

    character: str
    within: Literal["key", "text"]

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        code = ord(self.character)
        name = unicodedata.name(self.character, "not a character of text").lower()
        return f"a {self.within} holds U+{code:04X} ({name})"

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        if self.character == "\0":
            return "delete it; if the file is full of them it is UTF-16: save it as UTF-8"
        if self.character == "\ufeff":
            return "save the file as UTF-8, without a byte order mark"
        return "delete the character; it may not be visible in your editor"


ForbiddenYaml = Literal[
    "alias", "anchor", "tag", "directive", "second document", "merge key", "interpolation"
]
_YAML_FIXES: dict[ForbiddenYaml, str] = {
    "alias": "write the value out; quote it if it is a text that begins with '*'",
    "anchor": "delete the anchor and write the value out where it is used",
    "tag": "delete the tag; a text that begins with '!' goes in quotes",
    "second document": "keep one document a file; delete the text from '---' on",
    "merge key": "write the keys out",
    "interpolation": 'write the value itself, or set it on the command line: key="$NAME"',
    "directive": "delete the line that begins with %",
}


@dataclass(eq=False, kw_only=True)
class ForbiddenYamlError(RecipeError):
    """YAML that a recipe does without, because a recipe from a stranger is data and no program."""

    slug: ClassVar[str] = "forbidden-yaml"

    what: ForbiddenYaml
    found: str

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        article = "an" if self.what[0] in "aeiou" else "a"
        return f"a recipe cannot hold {article} {self.what}, got '{one_line(self.found)}'"

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        return _YAML_FIXES[self.what]


@dataclass(eq=False, kw_only=True)
class DuplicateKeyError(RecipeError):
    """One key twice in one mapping; `key` is its path, the last element the key itself."""

    slug: ClassVar[str] = "duplicate-key"

    key: RecipeKey
    first: Span

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return f"key '{one_line(self.key[-1])}' is given twice"

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        return {"first": str(self.first)}

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        return "delete one of the two"


@dataclass(eq=False, kw_only=True)
class NotOverridableError(RecipeError):
    """A key that belongs to Hydra, not to a recipe."""

    slug: ClassVar[str] = "not-overridable"

    name: str

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return f"a recipe cannot set '{one_line(self.name)}'"

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        if self.name.startswith("hydra"):
            return "give it on the command line: hydra.<key>=<value>"
        return "name a layer, an optimizer or a data set by its own key; code is never named"


QUOTE_IT = "quote the value: key='value'; in a shell put double quotes around all of it"


@dataclass(eq=False, kw_only=True)
class OverrideSyntaxError(RecipeError):
    """An argument that is not `key=value`; `known` are the words it could have been."""

    slug: ClassVar[str] = "override-syntax"

    text: str
    reason: str
    advice: str = QUOTE_IT
    word: str = ""
    known: tuple[str, ...] = ()

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return f"override '{one_line(self.text)}': {self.reason}"

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        return {"known": listed(self.known)} if self.known else {}

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        return did_you_mean(self.word, self.known, self.advice)


@dataclass(eq=False, kw_only=True)
class OverrideKeyError(RecipeError):
    """An override of a key or an item that the recipe has not; `names` is what is there instead."""

    slug: ClassVar[str] = "override-key"

    name: str
    inside: str  # the deepest place that exists, '' for the whole recipe
    holds: Literal["mapping", "list", "value"]
    names: tuple[str, ...] = ()  # keys, or indices, or the one value

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        name = one_line(self.name)
        place = f"'{one_line(self.inside)}'" if self.inside else "the recipe"
        match self.holds:
            case "mapping":
                return f"{place} has no key '{name}'"
            case "list":
                return f"{place} is a list and has no item '{name}'"
            case "value":
                return f"{place} is a value and has no key '{name}'"

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        shown = listed([one_line(name) for name in self.names]) or "nothing"
        return {{"mapping": "keys", "list": "items", "value": "value"}[self.holds]: shown}

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        match self.holds:
            case "mapping":
                return did_you_mean(self.name, self.names, "leave this override out")
            case "list":
                return "items count from 0"
            case "value":
                return f"replace the value by a mapping: {one_line(self.inside)}={{...}}"


@dataclass(eq=False, kw_only=True)
class CommandLineError(RecipeError):
    """A verb, an option or an argument that the command does not take; `known` are those it does."""

    slug: ClassVar[str] = "command-line"

    problem: str
    help: str
    word: str = ""
    known: tuple[str, ...] = ()

    def headline(self) -> str:
        """Say what is wrong, subject first, in one line."""
        return one_line(self.problem)

    def facts(self) -> dict[str, str]:
        """Name what was found, what was wanted and what helps to see why."""
        found = {"found": f"'{one_line(self.word)}'"} if self.word else {}
        return found | ({"wanted": listed(self.known, 12)} if self.known else {})

    def fix(self) -> str:
        """Name one thing to do, as text that can be pasted."""
        return did_you_mean(self.word, self.known, f"see {self.help}")
