"""Bar B6: no stale row is ever read, and none is computed again without need.

The cases are in key_images.py, key_networks.py, key_code.py and key_machine.py. Behind them each
ingredient of a key is taken out in turn: at least one case must then read a stale row.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_recipe

from reliability import key_images, key_machine, key_networks, key_world
from reliability.key_code import HELPERS, LEAF, edited_texts, plain_code, with_code
from reliability.key_world import HIT, MISS, Ground, Pair, plain_sets, sets_of
from tlcompile.bundle import load_bundle
from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import Keys, digest
from tlcompile.data.samples import Samples
from tlcompile.features.canonical import Canonical
from tlcompile.features.fingerprint import FOR_PEOPLE, differs, key_of
from tlcompile.recipe.image_changes import RandomRotation
from tlcompile.run.train import train_recipe
from tlcompile.store.about import About

TABLES = (key_images, key_machine, key_networks)  # importing them fills MISS and HIT
TESTS = Path(__file__).parent.parent
PAIRS: dict[str, Pair] = {}


def pair_of(name: str, folder: Path) -> Pair:
    """Return what a case compares; computed once, for the tests below ask again."""
    if name not in PAIRS:
        folder.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            PAIRS[name] = MISS[name](Ground(folder, patch))
    return PAIRS[name]


def test_the_matrix_is_as_large_as_the_bar_wants() -> None:
    assert len(MISS) >= 40
    assert len(HIT) >= 20


@pytest.mark.parametrize("name", MISS)
def test_an_edit_misses(tmp_path: Path, name: str) -> None:
    before, after = pair_of(name, tmp_path)
    assert before.addresses
    assert after.addresses
    assert before.addresses.isdisjoint(after.addresses)
    if before.rows == after.rows:
        said = [differs(new, old) for new, old in zip(after.abouts, before.abouts, strict=True)]
        assert all(said), "people are told why"


@pytest.mark.parametrize("name", HIT)
def test_an_edit_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before, after = HIT[name](Ground(tmp_path, monkeypatch))
    fewer, more = sorted((before.addresses, after.addresses), key=len)
    why = [differs(new, old) for new, old in zip(after.abouts, before.abouts, strict=True)]
    assert fewer
    assert fewer <= more, why


def test_a_saved_and_loaded_model_hits(tmp_path: Path) -> None:
    """And so does a run that starts from it, for what that run does not train."""
    data = {"dataset": "digits", "per_class": 2, "classes": ["0", "1"]}
    recipe = make_recipe(freeze="block1", data=data, fine_tune={"epochs": 1})
    model = train_recipe(recipe, tmp_path / "run").model
    bundle = load_bundle(tmp_path / "run")
    again = make_recipe(base={"run": str(tmp_path / "run")}, freeze="block1")
    trained = sets_of(model, bundle.preprocessing).abouts
    assert sets_of(bundle.model, bundle.preprocessing).abouts == trained
    assert key_networks.digits(again, 2).abouts == trained
    assert key_networks.digits(make_recipe(freeze="block1"), 2).abouts == trained


OTHER_PROCESS = """
import torch
torch.set_num_threads(int({threads}))
from reliability.key_code import plain_code
from reliability.key_world import plain_sets
print(*(about.key for wanted in (plain_sets(), plain_code()) for about in wanted.abouts))
"""


def test_another_process_hits() -> None:
    """With other addresses, and another order of sets."""
    here = [about.key for wanted in (plain_sets(), plain_code()) for about in wanted.abouts]
    code = OTHER_PROCESS.format(threads=torch.get_num_threads())
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    place = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": place}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == here


# ---- Every ingredient is needed

Part = tuple[str, ...]
NAMED = ("modules", "tensors", "code", "libraries")  # by names of the user's; "*" stands for them


def parts_of(ingredients: dict[str, Any]) -> Iterator[tuple[Part, Part, Any]]:
    """Yield each ingredient: its kind, its place and its value."""
    for name, value in ingredients.items():
        if name in NAMED:
            for own, one in value.items():
                inner = one.items() if isinstance(one, dict) else [("", one)]
                for key, what in inner:
                    yield (name, "*", *filter(None, [key])), (name, own, key), what
        elif isinstance(value, dict) and name != "environment":
            for kind, place, what in parts_of(value):
                yield (name, *kind), (name, *place), what
        else:
            yield (name,), (name,), value


def changed_kinds(pair: tuple[About, About]) -> set[Part]:
    """Return the kinds of ingredients in which two sets differ."""
    old, new = ({p: (k, v) for k, p, v in parts_of(about.ingredients)} for about in pair)
    places = [place for place in {**old, **new} if old.get(place) != new.get(place)]
    return {(old.get(place) or new[place])[0] for place in places if place[0] not in FOR_PEOPLE}


def without(ingredients: dict[str, Any], part: Part) -> dict[str, Any]:
    """Take one kind out."""
    first, *rest = part
    if not rest:
        return {k: v for k, v in ingredients.items() if first not in (k, "*")}
    found = [n for n, v in ingredients.items() if first in (n, "*") and isinstance(v, dict)]
    return ingredients | {name: without(ingredients[name], tuple(rest)) for name in found}


def test_every_ingredient_is_needed(tmp_path: Path) -> None:
    """Take one out of the key: a case that must miss then hits."""
    pairs = [pair_of(name, tmp_path / str(n)) for n, name in enumerate(MISS)]
    sets = [(a, b) for old, new in pairs for a, b in zip(old.abouts, new.abouts, strict=True)]
    sets = [(a, b) for a, b in sets if a.key != b.key]
    kinds = {kind for two in sets for one in two for kind, _, _ in parts_of(one.ingredients)}
    kinds -= {kind for kind in kinds if kind[0] in FOR_PEOPLE}
    assert len(kinds) >= 50
    needed = set()
    for old, new in sets:
        changed = changed_kinds((old, new))
        if len(changed) == 1:
            (kind,) = changed
            keys = [key_of(without(about.ingredients, kind)) for about in (old, new)]
            assert keys[0] == keys[1]
            needed.add(kind)
    assert kinds == needed


# What is written of a user's code, with a case that needs it.
CODE_PARTS = {
    ("_class", "bases"): "a method of the class above",
    ("_class", "members"): "an attribute of the class",
    ("_function", "code"): "forward, a constant",
    ("_function", "defaults"): "a default value",
    ("_function", "keywords"): "a default value by name",
    ("_function", "closure"): "a value of a closure",
    ("_function", "globals"): "a constant of the file",
    ("_function", "attributes"): "an attribute of a function",
    ("_bytecode", "steps"): "a function that it calls",
    ("_bytecode", "handlers"): "what is guarded",
    ("_bytecode", "names"): "forward, another function of torch",
    ("_bytecode", "arguments"): "arguments: one or many",
    ("_bytecode", "constants"): "forward, a constant",
}


@pytest.mark.parametrize(("method", "part"), CODE_PARTS)
def test_every_part_of_code_is_needed(
    monkeypatch: pytest.MonkeyPatch, method: str, part: str
) -> None:
    original = getattr(Canonical, method)

    def mutant(self: Canonical, *given: Any) -> dict[str, Any]:
        if part == "bases":  # which are collected when they are named, not when they are returned
            given = (SimpleNamespace(**vars(given[0]), __bases__=()),)
        written = original(self, *given)
        known = {name for where, name in CODE_PARTS if where == method}
        assert set(written) == known, "each part has a case that needs it"
        return {name: value for name, value in written.items() if name != part}

    monkeypatch.setattr(Canonical, method, mutant)
    edited = sets_of(*with_code(*edited_texts(CODE_PARTS[method, part])))
    plain = sets_of(*with_code(HELPERS, LEAF))
    assert not plain.addresses.isdisjoint(edited.addresses)


def by_size_and_date(samples: Samples, *, workers: int) -> Keys:
    """Name files as others do."""
    status = [Path(name).stat() for name in samples.ids]
    texts = [f"{s.st_ino} {s.st_size} {s.st_mtime_ns}" for s in status]
    return np.stack([np.frombuffer(digest(text.encode()), np.uint8) for text in texts])


TAG = Augmentation.tag
assert isinstance(TAG, property)
tag_of: Any = TAG.fget


def tag_without(**same: Any) -> property:
    return property(lambda self: tag_of(dataclasses.replace(self, **same)))


ROW_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "one pixel of each image, size and date kept": (key_world, "digests_of", by_size_and_date),
    "views: the seed": (Augmentation, "tag", tag_without(seed=0)),
    "views: the names": (Augmentation, "tag", tag_without(changes=(RandomRotation(),))),
    "views: the size": (Augmentation, "tag", tag_without(size=0)),
    "views: another view of the same images": (Augmentation, "tag", tag_without(view=0)),
    "views: none": (Augmentation, "tag", property(lambda self: "")),
}


@pytest.mark.parametrize("name", ROW_MUTANTS)
def test_every_part_of_a_row_key_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(*ROW_MUTANTS[name])
    before, after = MISS[name](Ground(tmp_path, monkeypatch))
    new = after.addresses - before.addresses
    assert len(new) < len(after.addresses) or not new
