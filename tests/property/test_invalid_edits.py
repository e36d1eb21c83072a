"""Random recipes with one mistake: one clear error at the mistake's place, never a wrong graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from tiny import make_recipe

from property.drawn import Description, descriptions
from property.recipes import Names, Recipe
from property.test_valid_edits import CLASSES, base_of, snapshot
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.graph import PassBrokePromiseError

Mistake = tuple[Recipe, str]  # the recipe, and the name that the message must hold


def _unknown(draw: st.DrawFn, names: Names) -> Mistake:
    wrong = draw(st.sampled_from(names.all)) + "x"
    sections: list[Recipe] = [
        {"freeze": {"upto": [wrong]}},
        {"freeze": {"only": [wrong]}},
        {"remove": {wrong: draw(st.sampled_from(("drop", "bypass")))}},
        {"outputs": [names.all[-1], wrong]},
        {"add": {"new": {"layer": "dropout", "inputs": [wrong]}}},
        {"add": {"new": {"layer": "dropout", "inputs": ["x"], "feeds": [wrong]}}},
        {"freeze": {"upto": [{"match": f"{wrong}?"}]}},
        {"resize": {wrong: {"out": 3}}},
    ]
    return draw(st.sampled_from(sections)), wrong


def _dangling(draw: st.DrawFn, names: Names) -> Mistake:
    kept = [n for n in names.all if names.vertices[n].kind != "cat"]
    alive = [n for n in kept if any(names.vertices[r].kind != "cat" for r in names.readers(n))]
    name = draw(st.sampled_from(alive or names.all[-1:]))
    return {"remove": {name: "drop"}}, name


def _cycle(draw: st.DrawFn, names: Names) -> Mistake:
    one = {"layer": "dropout", "inputs": ["b"]}
    two = {"layer": "dropout", "inputs": ["a"], "feeds": [draw(st.sampled_from(names.all))]}
    return {"add": {"a": one, "b": two}}, "a"


def _fed_cycle(draw: st.DrawFn, names: Names) -> Mistake:
    """Let an early vertex read what depends on it."""
    pairs = [(n, r) for n in names.tensors if n != "x" for r in names.of_shape(names.shapes[n])]
    behind = [(n, r) for n, r in pairs if n in _ancestors(names, r) and n != r and names.readers(n)]
    if not behind:
        return _cycle(draw, names)
    early, late = draw(st.sampled_from(behind))
    reader = next(r for r in names.readers(early) if r == late or r in _ancestors(names, late))
    new = {"layer": "average", "inputs": [early, late], "feeds": [reader]}
    return {"add": {"back": new}}, "back"


def _ancestors(names: Names, name: str) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for read in names.nodes[waiting.pop()].reads:
            if read not in found:
                found.add(read)
                waiting.append(read)
    return found


def _taken(draw: st.DrawFn, names: Names) -> Mistake:
    name = draw(st.sampled_from(names.all))
    return {"add": {name: {"layer": "dropout", "inputs": ["x"]}}}, name


def _bad_name(draw: st.DrawFn, names: Names) -> Mistake:
    name = draw(st.sampled_from(("class", "forward", "a b", "ä", "state_dict", "self", "a..b")))
    return {"add": {name: {"layer": "dropout", "inputs": ["x"]}}}, name


def _wrong_shape(draw: st.DrawFn, names: Names) -> Mistake:
    source = draw(st.sampled_from(names.tensors))
    kind = {"layer": "linear", "out": 3}
    if len(names.shapes[source]) == 1:
        kind = {"layer": "conv2d", "out": 3, "kernel": 1}
    return {"add": {"new": {**kind, "inputs": [source]}}, "outputs": ["new"]}, "new"


def _number(draw: st.DrawFn, names: Names) -> Mistake:
    sizes = [n for n in names.all if names.vertices[n].kind == "size"]
    source = draw(st.sampled_from(sizes or ["x"]))
    inputs = [source, source] if not sizes else [source]
    return {"add": {"new": {"layer": "dropout", "inputs": inputs}}, "outputs": ["new"]}, "new"


def _frozen(draw: st.DrawFn, names: Names) -> Mistake:
    parts = [n for n in names.all if names.vertices[n].reads]
    name = draw(st.sampled_from(parts))
    return {"freeze": {"upto": [name]}, "remove": {name: "bypass"}}, name


def _random_and_frozen(draw: st.DrawFn, names: Names) -> Mistake:
    fed = [(n, r) for n in names.tensors for r in names.readers(n) if r in names.tensors]
    source, reader = draw(st.sampled_from(fed))
    new = {"layer": "scale", "by": 2.0, "inputs": [source], "feeds": [reader]}
    return {"freeze": {"upto": [reader]}, "add": {"new": new}}, "new"


def _not_computed(draw: st.DrawFn, names: Names) -> Mistake:
    name = names.all[-1]
    return {"remove": {name: "drop"}, "outputs": [name]}, name


def _without_effect(draw: st.DrawFn, names: Names) -> Mistake:
    source = draw(st.sampled_from(names.tensors))
    return {"add": {"new": {"layer": "dropout", "inputs": [source]}}}, "new"


def _inside_leaf(draw: st.DrawFn, names: Names) -> Mistake:
    leaves = [n for n, v in names.vertices.items() if v.kind in ("conv", "linear")]
    name = f"{draw(st.sampled_from(leaves))}.inner"
    return {"add": {name: {"layer": "dropout", "inputs": ["x"]}}}, name


def _not_replaced(draw: st.DrawFn, names: Names) -> Mistake:
    name = draw(st.sampled_from([*names.all, *names.regions]))
    return {"remove": {name: "replace"}}, name


def _unread_input(draw: st.DrawFn, names: Names) -> Mistake:
    return {"inputs": {"meta": {"shape": [draw(st.integers(1, 3))]}}}, "meta"


MISTAKES: list[Callable[[st.DrawFn, Names], Mistake]] = [
    _unknown, _dangling, _cycle, _fed_cycle, _taken, _bad_name, _wrong_shape, _number, _frozen,
    _random_and_frozen, _not_computed, _without_effect, _inside_leaf, _not_replaced, _unread_input,
]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> tuple[Description, Recipe, str, str]:
    description = draw(descriptions(tuples=False))
    mistake = draw(st.sampled_from(MISTAKES))
    recipe, name = mistake(draw, Names(description))
    freeze = {"freeze": {"upto": ["none"]}}
    head = {} if "outputs" in recipe else {"head": "keep"}
    base = {"base": {"model": "own", "size": 8}}
    return description, {**base, **freeze, **head, **recipe}, name, mistake.__name__


def check_case(case: tuple[Description, Recipe, str, str]) -> None:
    description, recipe, name, mistake = case
    event(mistake)
    base = base_of(description)
    before = snapshot(base)
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(make_recipe(**recipe), base=base, num_classes=CLASSES)
    error = caught.value
    assert not isinstance(error, PassBrokePromiseError), str(error)
    single = error.errors if isinstance(error, Problems) else (error,)
    assert all(one.where is not None for one in single), str(error)
    assert all(one.fix() and one.slug for one in single)
    assert name in str(error), f"the message does not name {name}:\n{error}"
    assert snapshot(base) == before


SETTINGS = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=60, derandomize=True, phases=(Phase.generate,), **SETTINGS)
@given(cases())
def test_a_mistake_is_one_error_at_its_place(case: tuple[Description, Recipe, str, str]) -> None:
    check_case(case)


@pytest.mark.slow
@settings(max_examples=2000, **SETTINGS)
@given(cases())
def test_many_mistakes_are_errors_at_their_place(
    case: tuple[Description, Recipe, str, str],
) -> None:
    check_case(case)
