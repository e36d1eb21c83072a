"""From a file and overrides to a recipe, and back through the resolved one that a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlcompile.errors.base import Span
from tlcompile.recipe.load import default_name, load_recipe
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import recipe_digest, resolved

# Those that start from a run need one: tests/e2e/test_thaw.py.
RECIPES = [
    path
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
    if "base: {run: " not in path.read_text()
]


def loaded(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("base: resnet18", "base: {model: resnet18}"),
        ("base: a\nfreeze: layer3", "base: {model: a}\nfreeze: {upto: [layer3]}"),
        ("base: a\nfreeze: [x, y]", "base: a\nfreeze: {upto: [x, y]}"),
        ("base: a\nfreeze: 1.10", 'base: a\nfreeze: {upto: ["1.10"]}'),
        ("base: a\ndata: d", "base: a\ndata: {folder: d}"),
        ("base: a\nfine_tune: {optimizer: sgd}", "base: a\nfine_tune: {optimizer: {name: sgd}}"),
        (
            "base: a\nfine_tune: {optimizer: {lr: 0.1}}",
            "base: a\nfine_tune: {optimizer: {name: adamw, lr: 0.1}}",
        ),
        (
            "base: a\nfine_tune: {schedule: constant}",
            "base: a\nfine_tune: {schedule: {name: constant}}",
        ),
        ("base: a\nfine_tune: {early_stop: 3}", "base: a\nfine_tune: {early_stop: {patience: 3}}"),
    ],
)
def test_short_forms(tmp_path: Path, short: str, long: str) -> None:
    assert resolved(loaded(tmp_path, short)) == resolved(loaded(tmp_path, long))


def test_an_override_reaches_inside_a_short_form(tmp_path: Path) -> None:
    recipe = loaded(
        tmp_path,
        "base: a\ndata: d",
        "data.per_class=3",
        "freeze.upto=x",
        "fine_tune.optimizer.lr=1e-4",
    )
    assert (recipe.data.folder, recipe.data.per_class) == ("d", 3)
    assert recipe.freeze.upto == ("x",)
    assert recipe.fine_tune.optimizer.lr == 1e-4


def test_places(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, "base: a\nfreeze: {upto: x}\n", "data.folder=d")
    assert recipe.where(("freeze", "upto")) == Span(str(tmp_path / "r.yaml"), 2, 16)
    found = recipe.where(("data", "folder"))
    assert found is not None
    assert found.file == "command line"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/flowers.yaml", "flowers"),
        ("my photos.yml", "my_photos"),
        ("..yaml", "recipe"),
        ("-.yaml", "recipe"),
    ],
)
def test_the_name_is_the_file(path: str, name: str) -> None:
    assert default_name(path) == name


def test_the_recipes_are_there() -> None:
    assert len(RECIPES) >= 9


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_resolved_recipe_is_the_same_recipe(tmp_path: Path, path: Path) -> None:
    recipe = load_recipe(path)
    again = tmp_path / "recipe.yaml"
    again.write_text(to_yaml(resolved(recipe)))
    other = load_recipe(again)
    assert other.model_dump() == recipe.model_dump()
    assert recipe_digest(other) == recipe_digest(recipe)
    assert to_yaml(resolved(other)) == again.read_text(), "a fixed point"


DIGEST = "base: a\nfreeze: b\n"


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "run.device=cpu",
        "run.workers=7",
        "output_dir=elsewhere",
        "features.cache=off",
        "fine_tune.seed=42",
        "fine_tune.epochs=10",
    ],
)
def test_the_digest_ignores_what_decides_nothing(tmp_path: Path, override: str) -> None:
    assert recipe_digest(loaded(tmp_path, DIGEST, override)) == recipe_digest(
        loaded(tmp_path, DIGEST)
    )


@pytest.mark.parametrize(
    "override",
    [
        "base=c",
        "base.weights=none",
        "freeze=c",
        "data=d",
        "fine_tune.seed=43",
        "task=binary",
        "features.batch_size=16",
        "fine_tune.optimizer=sgd",
        "head=keep",
        "fine_tune.epochs=11",
        "outputs=[x]",
        "remove.x=drop",
    ],
)
def test_the_digest_sees_all_the_rest(tmp_path: Path, override: str) -> None:
    assert recipe_digest(loaded(tmp_path, DIGEST, override)) != recipe_digest(
        loaded(tmp_path, DIGEST)
    )
