"""Every error that there is, rendered once: facts go in at the raise, so only this sees the words."""

from __future__ import annotations

import collections.abc
import importlib
import pickle
import pkgutil
import re
import types
import typing
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import tlcompile.errors
from tlcompile.errors.base import (
    WIDTH,
    Problems,
    Span,
    TLCompileError,
    did_you_mean,
    listed,
    nearest,
    one_line,
    raise_problems,
)
from tlcompile.errors.engines import PointLostError
from tlcompile.errors.ranks import RankLostError

SPAN = Span("recipes/flowers.yaml", 4, 12)
MODULES = [module.name for module in pkgutil.iter_modules(tlcompile.errors.__path__)]


def descendants(kind: type[TLCompileError]) -> list[type[TLCompileError]]:
    below = [one for child in kind.__subclasses__() for one in (child, *descendants(child))]
    return list(dict.fromkeys(below))


def every_error() -> list[type[TLCompileError]]:
    """Every class of tlcompile.errors that can be raised; a family has subclasses and no slug."""
    assert "base" in MODULES
    for name in MODULES:
        importlib.import_module(f"tlcompile.errors.{name}")
    found = [
        kind for kind in descendants(TLCompileError) if kind.__module__.startswith("tlcompile.")
    ]
    return [kind for kind in found if kind.slug or not kind.__subclasses__()]


ERRORS = every_error()
OTHERS = [kind for kind in ERRORS if kind is not Problems]
FACTS = {"character": "\x00"}  # that a type does not tell


def sample(kind: Any, long: bool = False) -> Any:
    """Make up a fact of a type; long ones stretch the lines."""
    plain: dict[Any, Any] = {
        str: "features.12.conv.downsample_1" if long else "layer4",
        int: 1234567 if long else 7,
        float: 0.015625,
        bool: True,
        Path: Path("runs") / ("long-name-" * 20 if long else "a") / "state.json",
        Span: SPAN,
        object: "a value",
        type(None): None,
    }
    if kind in plain:
        return plain[kind]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return sample(inner[0], long)
    if origin is typing.Literal:
        return inner[0]
    if origin is tuple:
        return tuple(samples(inner, long))
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable):
        return samples((inner[0], ...), long)
    if origin in (dict, collections.abc.Mapping):
        return dict(
            zip(samples((inner[0], ...), long), samples((inner[1], ...), long), strict=True)
        )
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{field.name: sample(hints[field.name], long) for field in fields(kind)})
    raise NotImplementedError(f"test_errors.py has no sample of {kind}")


def samples(inner: tuple[Any, ...], long: bool) -> list[Any]:
    if len(inner) == 2 and inner[1] is ...:
        one = sample(inner[0], long)
        many = [f"{one}{number}" for number in range(12)] if inner[0] is str else [one] * 12
        return many if long else many[:2]
    return [sample(kind, long) for kind in inner]


def example(kind: type[TLCompileError], *, long: bool = False) -> TLCompileError:
    if kind is Problems:
        return Problems(errors=(example(OTHERS[0], long=long), example(OTHERS[-1], long=long)))
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name not in ("key", "where")]
    facts = {name: FACTS.get(name, sample(hints[name], long)) for name in names}
    return kind(**facts, key=("freeze", "upto"))


GLITCH = re.compile(r"\{self\b|\{[a-z_]+[}!(\[]|\bNone\b|<class '|object at 0x|', \)|[ ]+$", re.M)


def glitches(text: str) -> list[str]:
    """Find what a missing f, a stray comma or a fact that is not there prints."""
    return GLITCH.findall(text)


def too_long(text: str) -> list[str]:
    """Find lines over the width that could have been folded: no path in them is to blame."""
    lines = [line for line in text.splitlines() if len(line) > WIDTH]
    return [line for line in lines if max(map(len, line.split())) <= WIDTH // 2]


def has_label(line: str) -> bool:
    return line.startswith("  ") and not line.startswith("    ")


def test_all_errors_were_found() -> None:
    assert len(ERRORS) > 40
    assert {kind.__module__ for kind in ERRORS} >= {
        f"tlcompile.errors.{name}" for name in ("base", "data", "edits", "graph", "recipe", "run")
    }


def test_slugs_are_unique() -> None:
    slugs = [kind.slug for kind in ERRORS]
    assert sorted(slugs) == sorted(set(slugs))


@pytest.mark.parametrize("kind", ERRORS)
def test_it_has_a_slug_a_docstring_and_a_known_exit_code(kind: type[TLCompileError]) -> None:
    assert kind.slug.replace("-", "").isalnum()
    assert kind.slug == kind.slug.lower()
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}("), "dataclass wrote this one"
    assert kind.exit_code in (1, 2, 74, 75, 130, 143)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
def test_it_renders(kind: type[TLCompileError], long: bool) -> None:
    error = example(kind, long=long)
    text = str(error)
    assert not glitches(text), text
    assert not too_long(text), text
    if kind is Problems:
        assert text.count("\n  fix") == 2
        return
    assert f"[{kind.slug}]" in text
    assert text.startswith("freeze.upto:")
    assert str(error.at(SPAN)).startswith("recipes/flowers.yaml:4:12:")
    headline = error.headline()
    assert not headline.endswith(".")
    assert "please" not in text.lower()
    rows = [line for line in text.splitlines() if has_label(line)]
    assert rows[-1].startswith("  fix "), text
    assert error.fix().strip()


@pytest.mark.parametrize("kind", ERRORS)
def test_it_survives_pickling(kind: type[TLCompileError]) -> None:
    error = example(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    for field in fields(kind):
        theirs, ours = getattr(again, field.name), getattr(error, field.name)
        assert str(theirs) == str(ours)
    assert len({error, again}) == 2, "hashed by identity, as every exception"


@pytest.mark.parametrize("kind", ERRORS)
def test_a_fact_that_may_be_absent_is_left_out(kind: type[TLCompileError]) -> None:
    hints = typing.get_type_hints(kind)
    error = example(kind)
    for field in fields(kind):
        if field.name not in ("key", "where") and type(None) in typing.get_args(hints[field.name]):
            facts: dict[str, Any] = {field.name: None}
            assert not glitches(str(replace(error, **facts))), field.name


# The tests above can fail


@dataclass(eq=False, kw_only=True)
class GlitchedError(TLCompileError):
    """A missing f."""

    slug: ClassVar[str] = "glitched"
    name: str

    def headline(self) -> str:
        return "base has no '{self.name}'"

    def fix(self) -> str:
        return "nothing"


def test_glitches_and_long_lines_are_seen() -> None:
    assert glitches(str(example(GlitchedError))) == ["{self"]
    assert glitches("wanted None")
    assert glitches("one of {near}")
    assert glitches("found ('fc', )")
    assert not glitches("write {upto: {vertex: layer4}} in train/<class>/")
    assert too_long("a b " * 30)
    assert not too_long("/" * 200)
    assert not too_long("  found  " + "/" * 200)


# The helpers of base.py


def test_problems_come_in_file_order_and_one_comes_alone() -> None:
    raise_problems([])
    late, early = (example(OTHERS[0]).at(Span("a.yaml", line, 1)) for line in (9, 3))
    with pytest.raises(type(late)) as alone:
        raise_problems([late])
    assert alone.value is late
    with pytest.raises(Problems) as several:
        raise_problems([late, early])
    assert several.value.errors == (early, late)
    assert several.value.exit_code == 2


def test_an_error_that_knows_its_place_keeps_it() -> None:
    error = example(OTHERS[0]).at(SPAN)
    assert error.at(Span("other.yaml", 1, 1)) is error
    assert error.at(None) is error


def test_words_of_the_helpers() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abcdefghij") == "a, b, c, d, e, f, g, h, ... (10 in all)"
    assert nearest("Layer4", ["layer3", "layer4"])[0] == "layer4"
    assert did_you_mean("layr4", ["layer4", "fc"], "look") == "did you mean 'layer4'?"
    assert did_you_mean("zzz", ["layer4"], "look") == "look"
    assert one_line("a\nb\x1b[0m") == r"a\nb\x1b[0m"
    assert one_line("a" * 100) == "a" * 77 + "..."


@pytest.mark.parametrize(
    ("how", "halve"), [("was killed by SIGKILL", True), ("ended with 7", False)]
)
def test_too_little_memory_is_thought_of_where_a_process_was_killed(how: str, halve: bool) -> None:
    for lost in (PointLostError(how=how), RankLostError(rank=1, world=2, how=how)):
        assert ("halve fine_tune.batch_size" in lost.fix()) is halve
