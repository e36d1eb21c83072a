"""The command line's `key=value`, and what it does to a recipe.

    freeze.upto=layer3                              one value
    fine_tune.optimizer.lr=1e-3,1e-4                a sweep; so are choice(...), range(...)
    add.classifier.6.out=7                          the name is found in the recipe: no brackets
    resize[classifier.3].out=512                    brackets make one key of a name with dots
    fine_tune.optimizer={name: adamw, lr: 1e-3}     carries the tag `name`, so it replaces
    fine_tune.optimizer={lr: 1e-3}                  any other mapping merges; {} empties
    ~remove.classifier.6                            deletes

Knows nothing of Hydra: hydra_text.py carries overrides through it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from tlcompile.errors.base import Span, TLCompileError, raise_problems
from tlcompile.errors.recipe import (
    OverrideKeyError,
    OverrideSyntaxError,
    RecipeError,
    RecipeTooBigError,
)
from tlcompile.recipe.flow import read_values
from tlcompile.recipe.nodes import (
    MAX_LEVELS,
    NOWHERE,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    key_problem,
)
from tlcompile.recipe.scalars import resolve

COMMAND_LINE = "command line"
FLAGS = ("-m", "--multirun", "--again", "--resume", "--inexact")

_PLUSES = re.compile(r"\+{0,2}")
_KEY = re.compile(r"(?:[^=\[]|\[[^\]]*\])*")
_KEY_SHAPE = re.compile(r"(?:\[[^\[\]]+\]|[^.\[\]]+)(?:\[[^\[\]]+\]|\.[^.\[\]]+)*")
_KEY_PART = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")
_OWN_SETTINGS = ("lr", "optimizer", "weight_decay")  # of a group; `optimizer` has keys of its own
_FOR_HYDRA = re.compile(r"(\+\+?|~)?hydra[./@]")

# The field that says what a mapping is: a mapping that carries it describes the whole thing.
_BASE_TAGS = ("model", "run")
_NAMED = ("optimizer", "schedule")


@dataclass(frozen=True)
class KeyPart:
    """One part of a typed key; `whole` was in brackets, so it is one key whatever its dots."""

    text: str
    whole: bool = False


@dataclass(frozen=True)
class Override:
    """One argument: a key, and the values it takes one after the other.

    `key` is as typed, without `+` and `~`: dots between parts, names with dots in brackets.
    `function` is the text of range(...) or interval(...), which Hydra expands; `values` is empty
    then, and in a deletion.
    """

    text: str = field(compare=False)
    delete: bool
    key: str
    values: tuple[Node, ...] = ()
    function: str = ""
    span_of_key: Span = field(default=NOWHERE, compare=False)
    span_of_value: Span = field(default=NOWHERE, compare=False)

    @property
    def parts(self) -> tuple[KeyPart, ...]:
        """Split the key."""
        found = _KEY_PART.finditer(self.key)
        return tuple(KeyPart(part[1] or part[2], part[1] is not None) for part in found)


def is_sweep(override: Override) -> bool:
    """Say whether an override stands for several values."""
    return len(override.values) > 1 or bool(override.function)


def split_arguments(
    argv: list[str], column: int = 1
) -> tuple[list[Override], list[str], list[str]]:
    """Sort a command line into overrides of the recipe, overrides of Hydra itself, and flags.

    Args:
        argv: What follows the recipe's name; `hydra.sweep.dir=x` and the like go to Hydra untouched.
        column: Where the first argument stands in the whole line.

    Raises:
        RecipeError: One argument is wrong.
        Problems: Several are.
    """
    overrides: list[Override] = []
    for_hydra: list[str] = []
    flags: list[str] = []
    problems: list[TLCompileError] = []
    for argument in argv:
        try:
            if argument in FLAGS:
                flags.append(argument)
            elif _FOR_HYDRA.match(argument):
                for_hydra.append(argument)
            else:
                overrides.append(parse_override(argument, column))
        except RecipeError as error:
            problems.append(error)
        column += len(argument) + 1
    raise_problems(problems)
    return overrides, for_hydra, flags


def parse_override(text: str, column: int = 1) -> Override:
    """Read one argument; `column` is where it begins in the arguments joined by one space.

    Raises:
        OverrideSyntaxError: It is not `key=value` or `~key`.
        RecipeError: Its key or its value holds what a recipe cannot hold.
    """
    where = Span(COMMAND_LINE, 1, column)
    if text.startswith("-"):
        option = text.partition("=")[0]
        raise OverrideSyntaxError(
            text=text,
            reason=f"there is no option '{option}'",
            advice="write an override as key=value",
            word=option,
            known=FLAGS,
            where=where,
        )
    prefix = "~" if text.startswith("~") else _PLUSES.match(text)[0]  # type: ignore[index]
    end = _KEY.match(text, len(prefix)).end()  # type: ignore[union-attr]
    typed, delete = text[len(prefix) : end], prefix == "~"
    if end < len(text) and text[end] != "=":
        raise OverrideSyntaxError(text=text, reason="a '[' is not closed", where=where)
    if delete == (end < len(text)):
        reason = "a deletion takes no value" if delete else "there is no '='"
        advice = f"~{typed}" if delete else f"{typed}=<value>"
        raise OverrideSyntaxError(text=text, reason=reason, advice=advice, where=where)
    key_span = Span(COMMAND_LINE, 1, column + len(prefix))
    override = Override(
        text=text,
        delete=delete,
        key=checked_key(text, typed, key_span),
        span_of_key=key_span,
        span_of_value=Span(COMMAND_LINE, 1, column + end + 1),
    )
    if delete:
        return override
    values, function = read_values(text, end + 1, where)
    return replace(override, values=values, function=function)


def checked_key(text: str, typed: str, where: Span) -> str:
    """Return a typed key, `output_dir` spelled out; refuse one that no recipe can hold."""
    if not _KEY_SHAPE.fullmatch(typed):
        raise OverrideSyntaxError(
            text=text,
            reason="the key is not parts with single dots between",
            advice="write section.name.field=value, or section[name.with.dots].field=value",
            where=where,
        )
    key = "run.output_dir" if typed == "output_dir" else typed
    parts = _KEY_PART.findall(key)
    if len(parts) > MAX_LEVELS:
        raise RecipeTooBigError(what="levels", found=len(parts), limit=MAX_LEVELS, where=where)
    for index, (whole, part) in enumerate(parts):
        problem = key_problem(whole or part, where, at_top=index == 0)
        if problem:
            raise problem
    return key


def apply_override(root: Mapping, override: Override) -> Mapping:
    """Return the recipe that an override makes of another; `root` itself stays as it is.

    Raises:
        OverrideKeyError: The key leads through a value, beside a list, or to nothing to delete.
        OverrideSyntaxError: The override is a sweep.
    """
    if is_sweep(override):
        raise OverrideSyntaxError(
            text=override.text,
            reason="several values are a sweep",
            advice="run the sweep with -m, or give one value",
            where=override.span_of_value,
        )
    change = _delete if override.delete else _set
    changed = change(root, override.parts, (), override)
    assert isinstance(changed, Mapping)  # the root is a mapping, and a key has at least one part
    return changed


Path = tuple[str, ...]
Parts = tuple[KeyPart, ...]


def _set(node: Node | None, parts: Parts, path: Path, override: Override) -> Node:
    """Return what stands at `path` after the override has gone `parts` further."""
    if not parts:
        return _merge(node, override.values[0], path)
    if isinstance(node, Sequence):
        index = _index(node, parts[0], path, override)
        items = list(node.items)
        items[index] = _set(items[index], parts[1:], (*path, str(index)), override)
        return Sequence(items, node.span)
    if node is None or (isinstance(node, Scalar) and resolve(node) is None):
        node = Mapping({}, override.span_of_key)
    if isinstance(node, Scalar):
        raise _no_key(node, parts, path, override)
    count = _known_parts(node, parts, path) or _new_parts(parts, path, override)
    name, rest = _join(parts[:count]), parts[count:]
    old = node.items.get(name)
    value = _set(old.value if old else None, rest, (*path, name), override)
    key_span = old.key_span if old and rest else override.span_of_key
    return Mapping({**node.items, name: Entry(key_span, value)}, node.span)


def _delete(node: Node, parts: Parts, path: Path, override: Override) -> Node:
    """Return what stands at `path` without what is `parts` further."""
    if isinstance(node, Sequence):
        index = _index(node, parts[0], path, override)
        kept = []
        if parts[1:]:
            kept = [_delete(node.items[index], parts[1:], (*path, str(index)), override)]
        return Sequence([*node.items[:index], *kept, *node.items[index + 1 :]], node.span)
    count = _known_parts(node, parts, path) if isinstance(node, Mapping) else 0
    if not count or isinstance(node, Scalar):
        raise _no_key(node, parts, path, override)
    name, rest = _join(parts[:count]), parts[count:]
    items = {key: entry for key, entry in node.items.items() if key != name or rest}
    if rest:
        old = items[name]
        items[name] = Entry(old.key_span, _delete(old.value, rest, (*path, name), override))
    return Mapping(items, node.span)


def _join(parts: Parts) -> str:
    return ".".join(part.text for part in parts)


def _dotted(parts: Parts) -> int:
    """Count the parts at the front that may belong together: up to the first in brackets."""
    wholes = [index for index, part in enumerate(parts) if part.whole]
    return wholes[0] if wholes else len(parts)


def _known_parts(node: Mapping, parts: Parts, path: Path) -> int:
    """Count the parts that name an existing key, the longest name first; 0 if none does."""
    if parts[0].whole:
        return int(parts[0].text in node.items)
    for count in range(_dotted(parts), 0, -1):
        entry = node.items.get(_join(parts[:count]))
        if entry and not _goes_on(entry.value, parts[count:], path):
            return count
    return 0


def _goes_on(value: Node, rest: Parts, path: Path) -> bool:
    """Say whether an existing name is only the front of the vertex that was typed.

    `remove: {classifier: drop}` and `remove.classifier.6=drop` are two vertices, and so are
    `resize: {layer4: {out: 8}}` and `resize.layer4.1.conv2.out=8`: no field is a number.
    """
    if not rest or not _by_vertex(path):
        return False
    return isinstance(value, Scalar) or rest[0].text.isdigit()


def _by_vertex(path: Path) -> bool:
    """Tell whether keys are names of vertices, which have dots; phases have groups, too."""
    return path in (("remove",), ("inputs",), ("add",), ("resize",)) or path[-1:] == ("groups",)


def _new_parts(parts: Parts, path: Path, override: Override) -> int:
    """Count the parts of a key that the recipe has not yet; vertices have dots in their names."""
    dotted = _dotted(parts)
    if parts[0].whole:
        return 1
    if path == ("remove",):
        return dotted
    if not _by_vertex(path):
        return 1
    own = [i for i in range(1, dotted) if parts[i].text in _OWN_SETTINGS]
    if path[-1] == "groups" and own:
        return own[0]
    value = override.values[0]
    described = isinstance(value, Mapping) and (path != ("add",) or "layer" in value.items)
    return dotted if described or dotted < len(parts) else max(dotted - 1, 1)


def _index(node: Sequence, part: KeyPart, path: Path, override: Override) -> int:
    if part.text.isascii() and part.text.isdigit() and len(part.text) < 9:
        index = int(part.text)
        if index < len(node.items):
            return index
    raise _no_key(node, (part,), path, override)


def _no_key(node: Node, parts: Parts, path: Path, override: Override) -> OverrideKeyError:
    where, inside = override.span_of_key, ".".join(path)
    match node:
        case Mapping():
            name = _join(parts)
            names = tuple(node.items)
            return OverrideKeyError(
                name=name, inside=inside, holds="mapping", names=names, where=where
            )
        case Sequence():
            indices = tuple(map(str, range(len(node.items))))
            return OverrideKeyError(
                name=parts[0].text, inside=inside, holds="list", names=indices, where=where
            )
        case Scalar():
            return OverrideKeyError(
                name=_join(parts), inside=inside, holds="value", names=(node.text,), where=where
            )


def _merge(old: Node | None, new: Node, path: Path) -> Node:
    """Return what stands at `path` when `new` is set over `old`."""
    if not isinstance(new, Mapping) or not isinstance(old, Mapping) or _replaces(new, path):
        return new
    items = dict(old.items)
    for key, entry in new.items.items():
        before = items.get(key)
        value = _merge(before.value if before else None, entry.value, (*path, key))
        items[key] = Entry(entry.key_span, value)
    return Mapping(items, old.span)


def _replaces(new: Mapping, path: Path) -> bool:
    """Say whether a mapping describes the whole thing at `path`: it carries its tag, or is {}."""
    if not new.items:
        return True
    if path == ("base",):
        return any(tag in new.items for tag in _BASE_TAGS)
    if len(path) == 2 and path[0] == "add":
        return "layer" in new.items
    return path[-1] in _NAMED and "name" in new.items
