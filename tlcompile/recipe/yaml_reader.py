"""Read a recipe's text into a tree in which every key and value knows its line and column.

Built on the events of PyYAML's pure SafeLoader, not on its composer: events need no recursion,
build no objects and expand no aliases, so depth, tags and alias bombs cost nothing. What a recipe
does without (tags, anchors, merge keys, interpolations, second documents) is refused here, all of
it at once.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tlcompile.errors.base import RecipeKey, Span, nearest, raise_problems
from tlcompile.errors.recipe import (
    DuplicateKeyError,
    FileReason,
    ForbiddenCharacterError,
    ForbiddenYaml,
    ForbiddenYamlError,
    RecipeError,
    RecipeFileError,
    RecipeSyntaxError,
    RecipeTooBigError,
)
from tlcompile.recipe.nodes import (
    MAX_LEVELS,
    NOWHERE,
    UNWRITABLE,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    key_problem,
    text_problem,
)

MAX_BYTES = 2**20  # a long recipe has 10 KiB
_LATE = {
    "while scanning a simple key",
    "while scanning an alias",
    "while scanning an anchor",
    "while scanning a tag",
    "while parsing a tag",
}
_LONE_CR = re.compile(r"\r(?!\n)")


def read_recipe_file(path: str | Path) -> Mapping:
    """Read a recipe from a file.

    Raises:
        RecipeFileError: The file is missing, not a file, or not UTF-8.
        RecipeError: As `read_recipe_text`.
    """
    name = str(path)
    try:
        data = _read_bytes(path)
    except FileNotFoundError:
        _refuse_file(name, "missing", nearby=_nearby(path))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        _refuse_file(name, "unreadable", getattr(error, "strerror", None) or str(error))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        byte = f"byte 0x{data[error.start]:02x}"
        _refuse_file(name, "not UTF-8", byte, where=_place(name, before, len(before)))
    return read_recipe_text(text, name)


def _read_bytes(path: str | Path) -> bytes:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        _refuse_file(str(path), "directory", nearby=_recipes_in(path))
    if not stat.S_ISREG(mode):  # /dev/zero has no end, a FIFO no beginning
        _refuse_file(str(path), "not a file")
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _too_many_bytes(len(data), Span(str(path), 1, 1))
    return data


def _too_many_bytes(found: int, where: Span) -> RecipeTooBigError:
    return RecipeTooBigError(what="bytes", found=found, limit=MAX_BYTES, where=where)


def _refuse_file(
    path: str,
    reason: FileReason,
    detail: str = "",
    *,
    nearby: tuple[str, ...] = (),
    where: Span | None = None,
) -> NoReturn:
    raise RecipeFileError(path=path, reason=reason, detail=detail, nearby=nearby, where=where)


def _recipes_in(folder: str | Path) -> tuple[str, ...]:
    """List a folder's YAML files as they would be typed."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith((".yaml", ".yml")))
    except OSError:
        return ()
    return tuple(str(Path(folder) / name) for name in names)


def _nearby(path: str | Path) -> tuple[str, ...]:
    """List the recipes beside a missing one, the nearest name first."""
    beside = _recipes_in(Path(path).parent)
    return tuple(dict.fromkeys([*nearest(str(path), beside), *beside]))


def read_recipe_text(text: str, file: str) -> Mapping:
    """Read a recipe from text; `file` is what errors call it.

    Raises:
        RecipeError: One thing is wrong: syntax, size, depth, or something that is forbidden.
        Problems: Several independent things are wrong.
    """
    size = len(text) if len(text) > MAX_BYTES else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _too_many_bytes(size, Span(file, 1, 1))
    # PyYAML breaks lines at a lone CR and at U+0085, U+2028, U+2029; editors do not show it.
    wrong = UNWRITABLE.search(text) or _LONE_CR.search(text)
    if wrong:
        place = _place(file, text, wrong.start())
        raise ForbiddenCharacterError(character=wrong[0], within="text", where=place)
    return _Builder(file).build(text)


def _place(file: str, text: str, offset: int) -> Span:
    line_start = text.rfind("\n", 0, offset) + 1
    return Span(file, text.count("\n", 0, offset) + 1, offset - line_start + 1)


@dataclass
class _Open:
    """A mapping or list that has begun; `key` waits for its value, `skip` forgets that value."""

    node: Mapping | Sequence
    key: str | None = None
    key_span: Span = NOWHERE
    skip: bool = False


class _Builder:
    """Builds one tree from events and gathers what is wrong on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[RecipeError] = []
        self.open: list[_Open] = []
        self.root: Node | None = None

    def build(self, text: str) -> Mapping:
        try:
            for event in self._events(text):
                self._take(event)
        except RecipeError as error:  # nothing after this can be read
            self.problems.append(error)
        raise_problems(self.problems)
        if isinstance(self.root, Mapping):
            return self.root
        empty = self.root is None or self.root == Scalar("", True)
        where = Span(self.file, 1, 1) if self.root is None else self.root.span
        raise RecipeSyntaxError(problem="nothing" if empty else "not a mapping", where=where)

    def _events(self, text: str) -> Iterator[yaml.Event]:
        loader = yaml.SafeLoader(text)
        try:
            while loader.check_event():
                yield loader.get_event()  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as error:
            raise self._refusal(error) from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # chr() and int() of what an escape or a %YAML line says
            where = self._span(loader.get_mark())
            problem = str(error) if "digits" in str(error) else "escape beyond"
            raise RecipeSyntaxError(problem=problem, where=where) from error
        finally:
            loader.dispose()

    def _refusal(self, error: yaml.MarkedYAMLError) -> RecipeError:
        problem, context = error.problem or "", error.context or ""
        begin, here = error.context_mark, error.problem_mark
        if begin and (context in _LATE or problem.startswith("found unexpected")):
            here = begin  # the parser sees it only further on
        where = self._span(here or begin)
        if context == "while scanning an alias":
            return ForbiddenYamlError(what="alias", found="*", where=where)
        if context == "while scanning an anchor":
            return ForbiddenYamlError(what="anchor", found="&", where=where)
        if problem.startswith("found undefined tag handle") or context.endswith(" tag"):
            return ForbiddenYamlError(what="tag", found="!", where=where)
        opened = self._span(begin) if begin and begin is not here else None
        return RecipeSyntaxError(problem=problem, opened=opened, where=where)

    def _span(self, mark: Any) -> Span:
        return Span(self.file, mark.line + 1, mark.column + 1) if mark else Span(self.file, 1, 1)

    def _take(self, event: yaml.Event) -> None:
        span = self._span(event.start_mark)
        match event:
            case yaml.DocumentStartEvent():
                self._begin_document(event, span)
            case yaml.AliasEvent():
                self._forbid("alias", f"*{event.anchor}", span)
                self._place(Scalar("", True, span), forbidden=True)
            case yaml.ScalarEvent():
                forbidden = self._check_properties(event, span)
                self._place(Scalar(event.value, event.style is None, span), forbidden)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._check_properties(event, span)
                begun = isinstance(event, yaml.MappingStartEvent)
                self._begin(Mapping({}, span) if begun else Sequence([], span))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._place(self.open.pop().node)

    def _begin_document(self, event: yaml.DocumentStartEvent, span: Span) -> None:
        if self.root is not None:
            raise ForbiddenYamlError(what="second document", found="---", where=span)
        for handle, prefix in (event.tags or {}).items():
            self._forbid("directive", f"%TAG {handle} {prefix}", span)
        if event.version:
            self._forbid("directive", "%YAML {}.{}".format(*event.version), span)

    def _check_properties(self, event: yaml.NodeEvent, span: Span) -> bool:
        """Note an anchor and a tag; say whether there was one."""
        if event.anchor is not None:
            self._forbid("anchor", f"&{event.anchor}", span)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._forbid("tag", tag.replace("tag:yaml.org,2002:", "!!"), span)
        return event.anchor is not None or tag is not None

    def _forbid(self, what: ForbiddenYaml, found: str, where: Span) -> None:
        self.problems.append(ForbiddenYamlError(what=what, found=found, where=where))

    def _begin(self, node: Mapping | Sequence) -> None:
        if len(self.open) == MAX_LEVELS:
            raise RecipeTooBigError(
                what="levels", found=MAX_LEVELS + 1, limit=MAX_LEVELS, where=node.span
            )
        self.open.append(_Open(node))

    def _place(self, node: Node, forbidden: bool = False) -> None:
        """Put a finished node where it belongs: the root, an item, a key, or a key's value."""
        parent = self.open[-1] if self.open else None
        if parent and isinstance(parent.node, Mapping) and parent.key is None:
            parent.skip = forbidden or not self._is_key(parent.node, node)
            parent.key = node.text if isinstance(node, Scalar) else ""
            parent.key_span = node.span
            return
        if isinstance(node, Scalar) and not forbidden:
            self._note(text_problem(node.text, node.span))
        if parent is None:
            self.root = node
        elif isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        else:
            if not parent.skip:
                parent.node.items[parent.key or ""] = Entry(parent.key_span, node)
            parent.key = None

    def _is_key(self, mapping: Mapping, node: Node) -> bool:
        """Say whether a node may be the next key of a mapping, and note why not."""
        if not isinstance(node, Scalar):
            self._note(RecipeSyntaxError(problem="key is not text", where=node.span))
        elif node.plain and node.text == "<<":
            self._forbid("merge key", "<<", node.span)
        elif problem := key_problem(node.text, node.span, at_top=len(self.open) == 1):
            self._note(problem)
        elif node.text in mapping.items:
            first = mapping.items[node.text].key_span
            path = (*self._path(), node.text)
            self._note(DuplicateKeyError(key=path, first=first, where=node.span))
        else:
            return True
        return False

    def _path(self) -> RecipeKey:
        """Name the mapping that is open now: the keys and indices that lead to it."""
        return tuple(
            len(outer.node.items) if isinstance(outer.node, Sequence) else outer.key or ""
            for outer in self.open[:-1]
        )

    def _note(self, problem: RecipeError | None) -> None:
        if problem:
            self.problems.append(problem)
