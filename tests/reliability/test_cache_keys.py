"""Bar B6: no stale row is ever read, and none is computed again without need.

The cases are in key_images.py, key_networks.py, key_code.py and key_machine.py. Behind them each
ingredient of a key is taken out in turn: at least one case must then read a stale row.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reliability import key_images, key_machine, key_networks, key_world
from reliability.key_code import edited_texts, plain_code, with_code
from reliability.key_world import HIT, MISS, Ground, Pair, plain_sets, sets_of
from tiny import make_recipe
from tlcompile.bundle import load_bundle
from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import Keys
from tlcompile.data.samples import Samples
from tlcompile.features.canonical import Canonical
from tlcompile.features.fingerprint import FOR_PEOPLE, differs, key_of
from tlcompile.run.train import train_recipe

TABLES = (key_images, key_machine, key_networks)  # importing them fills MISS and HIT
TESTS = Path(__file__).parent.parent
PAIRS: dict[str, Pair] = {}


def pair_of(name: str, folder: Path) -> Pair:
    """Return what a case compares; computed once, for the tests below ask again."""
    if name not in PAIRS:
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

Path_ = tuple[str, ...]
NAMED = ("modules", "tensors", "code", "libraries")  # whose second step is a name of the user's


def parts_of(ingredients: dict[str, Any], path: Path_ = ()) -> Iterator[Path_]:
    """Yield each ingredient's place, down to what is not asked for one by one."""
    for name, value in ingredients.items():
        here = (*path, "*" if path and path[0] in NAMED and len(path) == 1 else name)
        is_whole = here[0] == "preprocessing" or name in ("settings", "hooks")
        if isinstance(value, dict) and value and not (is_whole and len(here) > 1):
            yield from parts_of(value, here)
        else:
            yield here


def without(ingredients: dict[str, Any], part: Path_) -> dict[str, Any]:
    first, *rest = part
    if not rest:
        return {} if first == "*" else {k: v for k, v in ingredients.items() if k != first}
    inside = ingredients if first == "*" else {first, *()} & ingredients.keys()
    return {
        name: without(value, tuple(rest)) if name in inside and isinstance(value, dict) else value
        for name, value in ingredients.items()
    }


def test_every_ingredient_is_needed(tmp_path: Path) -> None:
    """Take one out of the key: a case that must miss then hits."""
    pairs = [pair_of(name, tmp_path / str(n)) for n, name in enumerate(MISS)]
    pairs = [pair for pair in pairs if pair[0].rows == pair[1].rows]
    every = {about.key: about for pair in pairs for wanted in pair for about in wanted.abouts}
    parts = {part for about in every.values() for part in parts_of(about.ingredients)}
    parts = {part for part in parts if part[0] not in FOR_PEOPLE}
    assert len(parts) >= 60

    def is_stale(pair: Pair, part: Path_) -> bool:
        keys = [
            {key_of(without(about.ingredients, part)) for about in wanted.abouts}
            for wanted in pair
        ]
        return not keys[0].isdisjoint(keys[1])

    unneeded = [part for part in parts if not any(is_stale(pair, part) for pair in pairs)]
    assert not unneeded


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
        written = original(self, *given)
        known = {name for where, name in CODE_PARTS if where == method}
        assert set(written) == known, "each part has a case that needs it"
        return {name: value for name, value in written.items() if name != part}

    monkeypatch.setattr(Canonical, method, mutant)
    edited = sets_of(*with_code(*edited_texts(CODE_PARTS[method, part])))
    plain = sets_of(*with_code(*edited_texts("nothing")))
    assert not plain.addresses.isdisjoint(edited.addresses)


def by_size_and_date(samples: Samples, *, workers: int) -> Keys:
    """Name files as others do."""
    import numpy as np

    from tlcompile.data.digests import digest

    status = [Path(name).stat() for name in samples.ids]
    texts = [f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in zip(samples.ids, status)]
    rows = [np.frombuffer(digest(text.encode()), np.uint8) for text in texts]
    return np.stack(rows) if rows else np.empty((0, 32), np.uint8)


TAG = Augmentation.tag
assert isinstance(TAG, property)
tag_of: Any = TAG.fget


def tag_without(**same: Any) -> property:
    return property(lambda self: tag_of(dataclasses.replace(self, **same)))


ROW_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "one pixel of each image, size and date kept": (key_world, "digests_of", by_size_and_date),
    "views: the seed": (Augmentation, "tag", tag_without(seed=0)),
    "views: the names": (Augmentation, "tag", tag_without(names=("rotation",))),
    "views: the size": (Augmentation, "tag", tag_without(size=0)),
    "views: another view of the same images": (Augmentation, "tag", tag_without(view=0)),
    "views: none": (Augmentation, "tag", property(lambda self: "")),
}


@pytest.mark.parametrize("name", ROW_MUTANTS)
def test_every_part_of_a_row_key_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(*ROW_MUTANTS[name])
    with contextlib.suppress(StaleError):
        before, after = MISS[name](Ground(tmp_path, monkeypatch))
        assert not before.addresses.isdisjoint(after.addresses)
