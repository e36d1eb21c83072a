"""Pydantic's findings as our errors, each with its place in the file or on the command line."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tlcompile.errors.base import RecipeKey
from tlcompile.errors.recipe import RecipeError
from tlcompile.errors.schema import (
    BadValueError,
    ChoiceError,
    MissingKeyError,
    RuleError,
    UnknownKeyError,
)
from tlcompile.recipe.nodes import Mapping, Node, Sequence, locate
from tlcompile.recipe.schema import Recipe

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping {key: value}",
    "model_type": "a mapping {key: value}",
    "model_attributes_type": "a mapping {key: value}",
    "tuple_type": "a list [a, b]",
    "finite_number": "a finite number",
    "none_required": "nothing",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "at most 80 letters, digits, '_', '.' and '-'; first a letter or a digit",
}


def problems_of(cause: ValidationError, root: Mapping) -> Iterator[RecipeError]:
    """Yield one error for each wrong place; the alternatives of a union count as one."""
    places: dict[RecipeKey, list[Any]] = {}
    for finding in _likely(cause.errors(include_url=False)):
        key = _in_tree(root, finding)
        places.setdefault(key, []).append(finding)
    for key, found in places.items():
        yield _error(root, key, found)


def _likely(findings: list[Any]) -> list[Any]:
    """Of a union of sections, keep what is said of the alternative that was likely meant."""
    unions: dict[tuple[Any, ...], dict[Any, list[Any]]] = {}
    for finding in findings:
        at = next((i for i, part in enumerate(finding["loc"]) if _is_section(part)), None)
        if at is not None:
            loc = finding["loc"]
            unions.setdefault(loc[:at], {}).setdefault(loc[at], []).append(finding)
    dropped: list[Any] = []
    for loc, branches in unions.items():
        others = [f for f in findings if f["loc"][: len(loc)] == loc and f["loc"] != loc]
        inside = [f for branch in branches.values() for f in branch]
        meant = max(branches.values(), key=_likeliness)
        likely = [b for b in branches.values() if _likeliness(b) == _likeliness(meant)]
        if any(f["type"] == "extra_forbidden" for f in meant):
            meant = [f for b in likely for f in b if f["type"] == "extra_forbidden"]
        if all(f["type"] in _NOT_A_SECTION for f in inside):
            dropped += inside
        else:
            dropped += [f for f in others if f not in meant]
    return [finding for finding in findings if finding not in dropped]


_NOT_A_SECTION = ("model_type", "model_attributes_type", "dict_type")


def _is_section(part: int | str) -> bool:
    return isinstance(part, str) and part in {"VertexPoint", "StagePoint", "MatchPoint"}


def _likeliness(branch: list[Any]) -> tuple[int, int]:
    return sum(map(_is_plain, branch)), -len(branch)


def _is_plain(finding: Any) -> bool:
    return finding["type"] not in ("missing", "extra_forbidden")


def _in_tree(root: Node, finding: Any) -> RecipeKey:
    """Drop elements that the file has no level for: union tags, names of alternatives."""
    cause = finding.get("ctx", {}).get("error")
    loc = (*finding["loc"], *getattr(cause, "key", ()))  # of a RuleAt
    node: Node | None = root
    key: list[int | str] = []
    for element in loc:
        if isinstance(node, Mapping) and str(element) in node.items:
            node = node.items[str(element)].value
            key.append(str(element))
        elif isinstance(node, Sequence) and element in range(len(node.items)):
            node = node.items[int(element)]
            key.append(element)
    if finding["type"] == "missing":
        key.append(str(loc[-1]))
    if finding["type"] == "union_tag_invalid":
        key.append(_tag(finding))
    return tuple(key)


def _error(root: Mapping, key: RecipeKey, found: list[Any]) -> RecipeError:
    first = found[0]
    kinds = {finding["type"] for finding in found}
    name = ".".join(map(str, key))
    where = locate(root, key, want_key=kinds <= {"extra_forbidden"})
    place: dict[str, Any] = {"key": key, "where": where}
    if kinds == {"extra_forbidden"}:
        known = tuple(dict.fromkeys(k for f in found for k in keys_at(f["loc"][:-1])))
        section, last = ".".join(map(str, key[:-1])), str(key[-1])
        same = ".".join(map(str, key[-2:])) if key[1:] else f".{last}."  # this section, elsewhere
        belongs = tuple(path for path in paths_of(last) if not path.endswith(same))
        return UnknownKeyError(name=last, section=section, known=known, belongs=belongs, **place)
    if kinds == {"missing"}:
        section, last = ".".join(map(str, key[:-1])), str(key[-1])
        meaning, example = _meaning(first["loc"]), _example(first["loc"])
        return MissingKeyError(
            name=last, section=section, meaning=meaning, example=example, **place
        )
    if kinds == {"value_error"}:
        rule, _, advice = str(first["ctx"]["error"]).partition(" | ")
        return RuleError(name=name, rule=rule, advice=advice or "keep one of them", **place)
    if kinds == {"union_tag_invalid"} or kinds == {"literal_error"}:
        choices = tuple(dict.fromkeys(c for f in found for c in _choices(f)))
        return ChoiceError(name=name, found=_shown(first), choices=choices, **place)
    if kinds == {"union_tag_not_found"}:
        meaning = "says which kind it is"
        return MissingKeyError(name=_tag(first), section=name, meaning=meaning, **place)
    wanted = " or ".join(dict.fromkeys(_wanted(finding) for finding in found if _is_plain(finding)))
    words = tuple(w for f in found if f["type"] == "literal_error" for w in _choices(f))
    return BadValueError(
        name=name,
        found=_shown(first),
        wanted=wanted,
        words=words,
        meaning=_meaning(first["loc"]),
        instead=_instead(first),
        **place,
    )


def _instead(finding: Any) -> str:
    """Return what could stand there; a word that is nearly right is corrected by the error."""
    match finding["type"]:
        case kind if kind in _NOT_A_SECTION:
            return _as_section(finding)
        case "string_pattern_mismatch":
            return re.sub(r"[^A-Za-z0-9_.-]", "_", _shown(finding))[:80].lstrip("_.-")
        case "literal_error":
            return ""
    return _example(finding["loc"])


def _example(loc: tuple[int | str, ...]) -> str:
    """Return a value that a key takes, as it is written; "": none is known."""
    field = _field_at(loc)
    if field is None:
        return ""
    value = field.examples[0] if field.examples else field.default
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}" if isinstance(value, int | float | str) and value != "" else ""


def _as_section(finding: Any) -> str:
    """Return the section that one value was meant to be: `5` is {plateau: 5}; "": nobody knows."""
    value, loc = finding["input"], finding["loc"]
    if isinstance(value, dict | list):
        return ""
    for section in _models_at(loc):
        for name, field in section.model_fields.items():
            key = field.alias or name
            try:
                section.model_validate({key: value})
            except ValidationError:
                continue
            return f"{{{key}: {_shown(finding)}}}"
    example = re.search(r"\{\w+: [^{}]+\}", _meaning(loc))
    return example[0] if example else ""


def _tag(finding: Any) -> str:
    """Return the key by which Pydantic tells the members of a union apart."""
    return str(finding.get("ctx", {}).get("discriminator", "")).strip("'")


def _shown(finding: Any) -> str:
    value = finding["input"]
    if isinstance(value, dict):
        value = value.get(_tag(finding), value)
    return str(getattr(value, "text", value)) if not isinstance(value, dict) else "a mapping"


def _choices(finding: Any) -> tuple[str, ...]:
    context = finding["ctx"]
    text = context.get("expected_tags") or context.get("expected") or ""
    return tuple(part.strip(" '") for part in text.replace(" or ", ", ").split(","))


def _wanted(finding: Any) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    limits = {"greater_than": "above", "greater_than_equal": "at least",
              "less_than": "below", "less_than_equal": "at most"}  # fmt: skip
    if kind in limits:
        return f"a number {limits[kind]} {next(iter(context.values()))}"
    if kind == "literal_error":
        return " or ".join(_choices(finding))
    if kind in _WANTED:
        return _WANTED[kind]
    message: str = finding["msg"]
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _meaning(loc: tuple[int | str, ...]) -> str:
    field = _field_at(loc)
    return "" if field is None else field.description or ""


def _field_at(loc: tuple[int | str, ...]) -> FieldInfo | None:
    for model in _models_at(loc[:-1]):
        for name, field in model.model_fields.items():
            if loc[-1] in (name, field.alias):
                return field
    return None


def keys_at(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the keys of the section at a place of Pydantic's."""
    return tuple(
        field.alias or name
        for model in _models_at(loc)
        for name, field in model.model_fields.items()
    )


def _models_at(loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """Walk the schema along a place; a union's tag or alternative chooses among its members."""
    current: list[Any] = [Recipe]
    for element in loc:
        models = [m for kind in current for m in _members(kind)]
        chosen = [m for m in models if element in _tags(m)]
        if chosen:
            current = list(chosen)
            continue
        fields = [
            field.annotation
            for model in models
            for name, field in model.model_fields.items()
            if element in (name, field.alias)
        ]
        current = fields or [v for kind in current for v in _values(kind)] or current
    return [m for kind in current for m in _members(kind)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """Return the words by which Pydantic names this member of a union."""
    tags: set[Any] = {model.__name__}
    for name in ("layer", "name"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is typing.Literal:
            tags |= set(get_args(field.annotation))
    return tags


def _members(kind: Any) -> list[type[BaseModel]]:
    """Return the sections inside a type, unions and annotations opened."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) in (typing.Union, types.UnionType, typing.Annotated, tuple):
        return [m for part in get_args(kind) for m in _members(part)]
    return []


def _values(kind: Any) -> list[Any]:
    """Return the value types of mappings inside a type."""
    if get_origin(kind) is dict:
        return [get_args(kind)[1]]
    return [v for part in get_args(kind) for v in _values(part)]


def paths_of(name: str) -> list[str]:
    """Return where in a recipe a key of this name would belong."""
    return [path for path in _all_paths(Recipe, "") if path.rsplit(".", 1)[-1] == name]


def _all_paths(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path
        seen: set[str] = set()
        for member in _members(field.annotation):
            for inner in _all_paths(member, f"{path}."):
                if inner not in seen:
                    seen.add(inner)
                    yield inner
