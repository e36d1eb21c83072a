"""The schema of one base: right recipes pass, a misspelt vertex fails, an editor can complete."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tlcompile.recipe.base_schema import BaseNames, schema_for
from tlcompile.recipe.scalars import to_data
from tlcompile.recipe.yaml_reader import read_recipe_file
from tlcompile.run.cli import main

ROOT = Path(__file__).parents[2]

NAMES = BaseNames(
    model="tiny",
    vertices={"stem": "Conv2d (N, 8, 8, 8)", "body.0": "ReLU", "body.1": "ReLU", "3": "Linear"},
    regions={"body": "2 vertices"},
    stages={"stage1": "ends at body.1"},
)
RIGHT: dict[str, Any] = {
    "base": "tiny",
    "freeze": {"upto": ["stem", {"vertex": "body"}, {"stage": 1}, {"match": "*.0"}]},
    "remove": {"3": "replace"},
    "resize": {"body.0": {"out": 7}},
    "add": {
        "3": {"layer": "linear", "out": "classes", "inputs": ["flat"]},
        "flat": {"layer": "flatten", "inputs": "body", "feeds": [3]},
    },
    "outputs": 3,
}


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    schema = schema_for(NAMES)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def errors(recipe: dict[str, Any]) -> list[str]:
    found = validator().iter_errors(recipe)
    return [".".join(map(str, error.absolute_path)) for error in found]


def changed(*path: Any, to: Any) -> dict[str, Any]:
    recipe = copy.deepcopy(RIGHT)
    place = recipe
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return recipe


def test_a_right_recipe_passes() -> None:
    assert errors(RIGHT) == []


@pytest.mark.parametrize(
    "freeze",
    ["stem", "head", "none", "all", "stage1", "body", 3, ["stem", 3], {"only": "stem"},
     {"only": ["body", {"match": "*"}]}, {"upto": "body.1"}, {"upto": 3}],
)  # fmt: skip
def test_every_form_of_a_freeze_point_passes(freeze: Any) -> None:
    assert errors({"base": {"model": "tiny"}, "freeze": freeze}) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("freeze",), "stme"),
        (("freeze",), ["stem", "boyd"]),
        (("freeze",), "stage2"),
        (("freeze",), 4),
        (("freeze", "upto"), "stme"),
        (("freeze", "upto"), [{"vertex": "stme"}]),
        (("freeze", "only"), "stme"),
        (("remove",), {"boyd": "drop"}),
        (("resize",), {"body.7": {"out": 3}}),
        (("fine_tune",), {"phases": [{"name": "a", "epochs": 1, "freeze": "stme"}]}),
        (("base",), "resnet18"),
        (("base",), {"model": "resnet18"}),
    ],
)
def test_a_name_that_the_base_has_not_fails(path: tuple[str, ...], value: Any) -> None:
    found = errors(changed(*path, to=value))
    assert len(found) == 1
    assert found[0].split(".")[0] == path[0]


def test_names_of_added_layers_can_be_read() -> None:
    recipe = changed("add", "flat", "inputs", to=["anything", "body"])
    recipe["outputs"] = ["flat", "3"]
    assert errors(recipe) == []
    assert errors(changed("outputs", to={"3": 1})) == ["outputs"]


def test_an_editor_finds_the_names_with_their_shapes() -> None:
    definitions = validator().schema["$defs"]
    point = definitions["Point"]
    told = dict(zip(point["enum"], point["enumDescriptions"], strict=True))
    assert told["stem"] == "Conv2d (N, 8, 8, 8)"
    assert {"head", "none", "all", "stage1", "body", "body.1", "3", 3} == set(told) - {
        "stem",
        "body.0",
    }
    remove = validator().schema["properties"]["remove"]["properties"]
    assert remove["body"]["description"] == "2 vertices"
    inputs = definitions["Linear"]["properties"]["inputs"]
    assert inputs["anyOf"][0] == {"$ref": "#/$defs/Reading"}
    assert "stem" in definitions["Reading"]["anyOf"][0]["enum"]


def test_the_schema_of_all_recipes_stays_as_it_is() -> None:
    from tlcompile.recipe.json_schema import recipe_schema

    before = recipe_schema()
    schema_for(NAMES)
    assert recipe_schema() == before


RECIPES = {
    "squeezenet1_0": ["ants_bees"],
    "resnet18": ["ants_bees_resnet18", "ants_bees_resnet18_finetune", "progressive"],
    "vgg16": ["flowers_last_layer", "flowers_bottleneck", "cats_dogs"],
    "digits_net": ["digits", "digits_base"],
}


@pytest.mark.parametrize("model", RECIPES)
def test_the_recipes_of_this_repository_pass(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", "--base", model]) == 0
    schema = json.loads(capsys.readouterr().out)
    of_base = jsonschema.Draft202012Validator(schema)
    for name in RECIPES[model]:
        recipe = to_data(read_recipe_file(ROOT / "recipes" / f"{name}.yaml"))
        problems = [f"{e.json_path}: {e.message}" for e in of_base.iter_errors(recipe)]
        assert problems == [], name
        misspelt = {**recipe, "freeze": "laeyr3"}
        assert not of_base.is_valid(misspelt)


def test_an_unknown_base_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--base", "resnet81"]) == 2
    assert "resnet18" in capsys.readouterr().err
