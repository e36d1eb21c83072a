"""Every public option has a line in a table, a unit where it is a number, and a test of its effect."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from option_tests import SEEN
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from recipe.layer_rows import ROWS
from recipe.setting_rows import SETTINGS
from recipe.test_initialisers import ROWS as INITIALISERS
from training.test_schedule import BY_EPOCH

from tlcompile.recipe.augment import CHANGES, OneChange
from tlcompile.recipe.initialisers import AnyInit
from tlcompile.recipe.layers.any_layer import AnyLayer
from tlcompile.recipe.layers.base import Layer, Parametric
from tlcompile.recipe.optimizers import OneOptimizer
from tlcompile.recipe.schedules import OneSchedule
from tlcompile.recipe.schema import Recipe

TESTS = Path(__file__).parent


def sections(kind: Any) -> list[type[BaseModel]]:
    """Return the sections that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return list(dict.fromkeys(one for part in get_args(kind) for one in sections(part)))


NAMED = {
    "layers": sections(AnyLayer),
    "initialisers": sections(AnyInit),
    "optimizers": sections(OneOptimizer),
    "schedules": sections(OneSchedule),
}
ELSEWHERE = {one for kinds in NAMED.values() for one in kinds} | {OneChange}
Option = tuple[str, FieldInfo]


def tag(field: FieldInfo) -> str:
    return (
        str(get_args(field.annotation)[0]) if get_origin(field.annotation) is typing.Literal else ""
    )


def options_of(model: type[BaseModel], prefix: str, told: set[Any]) -> Iterator[Option]:
    """Return the keys below a section that hold no section, or one that was told before."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = [one for one in sections(field.annotation) if one not in ELSEWHERE]
        if (name == "layer" and model is Layer) or key == "add":
            continue
        if not inner or set(inner) <= told:
            yield key, field
            continue
        below = f"{key}.<name>" if "dict[" in str(field.annotation) else key
        told |= set(inner)
        for one in inner:
            word = one.model_fields.get("name")
            if word is not None and tag(word):
                yield f"{below}[{tag(word)}]", field
                for own, its in options_of(one, f"{below}[{tag(word)}].", told):
                    if not own.endswith("].name"):
                        yield own, its
            else:
                yield from options_of(one, f"{below}.", told)


def of_layers() -> Iterator[Option]:
    """Return `add.linear.out`; what several types have from one class is `add.*.bias`."""
    for kind in NAMED["layers"]:
        shared = {n for one in kind.__mro__[1:] if one.__module__ == Layer.__module__
                  and issubclass(one, Layer) for n in one.model_fields}  # fmt: skip
        for name, field in kind.model_fields.items():
            if name not in shared | {"layer"}:
                yield f"add.{tag(kind.model_fields['layer'])}.{field.alias or name}", field


@cache
def options() -> dict[str, FieldInfo]:
    told: set[Any] = set()
    found = dict(options_of(Recipe, "", told))
    found |= dict(options_of(Layer, "add.", told))
    shared = set(Layer.model_fields)
    weights = [one for kind in NAMED["layers"] for one in kind.__mro__[:-1]
               if issubclass(one, Parametric) and one.__module__ == Layer.__module__]  # fmt: skip
    for one in weights:
        found |= {f"add.*.{name}": f for name, f in one.model_fields.items() if name not in shared}
    found |= dict(of_layers())
    for family in ("initialisers", "optimizers", "schedules"):
        for kind in NAMED[family]:
            word = tag(kind.model_fields["name"])
            rest = ((n, f) for n, f in kind.model_fields.items() if n != "name")
            found |= {f"{family}.{word}.{f.alias or n}": f for n, f in rest}
    for word, change in CHANGES.items():
        found |= {f"augmentations.{word}.{n}": f for n, f in change.model_fields.items()}
    return found


@cache
def entries() -> dict[str, str]:
    """Return the test of each option, as option_tests.py has it."""
    found, test = {}, ""
    for line in SEEN.splitlines():
        if "::" in line:
            test = line
        found |= dict.fromkeys(line.split() if line.startswith(" ") else [], test)
    return found


def in_rows(kind: str, word: str, key: str, default: Any) -> bool:
    """Tell whether a row that is compared with torch says this key, and not its default."""
    if kind == "add":
        found = [row.layer for row in (*ROWS, *SETTINGS)]
        rows = [one for one in found if word != "*" and one["layer"] in words_of(word)]
    elif kind == "initialisers":
        rows = [one for one, *_ in INITIALISERS if isinstance(one, dict)]
        rows = [one for one in rows if one["name"] in words_of(word, "initialisers", "name")]
    else:
        rows = [one for one, *_ in BY_EPOCH if one["name"] == word]
    return any(key in row and row[key] != default for row in rows)


def words_of(word: str, family: str = "layers", field: str = "layer") -> tuple[str, ...]:
    """Return all words of the section that has this one."""
    found = (get_args(kind.model_fields[field].annotation) for kind in NAMED[family])
    return next(words for words in found if word in words)


def is_seen(option: str, field: FieldInfo) -> bool:
    if any(fnmatchcase(option.replace("[", "("), one.replace("[", "(")) for one in entries()):
        return True
    kind, *middle, key = option.split(".")
    return kind in ("add", "initialisers", "schedules") and in_rows(
        kind, ".".join(middle), key, field.default
    )


def test_there_are_as_many_options_as_in_the_table() -> None:
    assert len(options()) > 300
    assert {
        "fine_tune.clip.norm",
        "add.max_pool.kernel",
        "schedules.step.gamma",
    } <= options().keys()


def test_every_option_has_a_test_that_sees_its_effect() -> None:
    assert {one for one, field in options().items() if not is_seen(one, field)} == set()


def test_every_entry_is_an_option() -> None:
    assert [one for one in entries() if "*" not in one and one not in options()] == []
    families = [one for one in entries() if "*" in one]
    assert all(any(fnmatchcase(key, one) for key in options()) for one in families)


def test_every_test_that_is_named_exists() -> None:
    for node in dict.fromkeys(entries().values()):
        path, _, name = node.partition("::")
        tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, node


def test_every_option_says_what_it_is() -> None:
    assert [one for one, field in options().items() if not field.description] == []


# What a number counts or is a part of.
UNIT = re.compile(
    r"seconds|epoch|step|pixel|share|byte|factor|norm|deviation|degree|probabilit|chance|rate|seed|"
    r"image|batch|thread|class|width|level|layer|channel|feature|number|window|grey|power|exponent|"
    r"draw|gain|weight|added|p of|Beta|torch|momentum|average|gradient|version|bits|magnitude|change",
    re.IGNORECASE,
)


def is_number(field: FieldInfo) -> bool:
    return bool(re.search(r"\b(int|float)\b", str(field.annotation)))


@pytest.mark.parametrize(
    "family", ["fine_tune", "data", "features", "run", "schedules", "augmentations"]
)
def test_every_number_says_its_unit(family: str) -> None:
    found = {one: f.description or "" for one, f in options().items() if one.startswith(family)}
    numbers = [one for one in found if is_number(options()[one])]
    assert [one for one in numbers if not UNIT.search(f"{one.split('.')[-1]} {found[one]}")] == []
