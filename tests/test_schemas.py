"""schemas/ and docs/recipe.md are what the code generates now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tlcompile.recipe.json_schema import schema_text
from tlcompile.recipe.reference import reference_text
from tlcompile.recipe.scalars import to_data
from tlcompile.recipe.yaml_reader import read_recipe_file

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.y*ml"))


def test_schemas_are_generated() -> None:
    files = sorted((ROOT / "schemas").rglob("*.json"))
    assert [file.name for file in files] == ["recipe.schema.json"]
    again = "tlcompile schema > schemas/recipe.schema.json"
    assert files[0].read_text(encoding="utf-8") == schema_text(), again


def test_reference_is_generated() -> None:
    text = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert text == reference_text(), "tlcompile schema --markdown > docs/recipe.md"


def test_every_section_is_closed_and_every_key_explained() -> None:
    schema = json.loads(schema_text())
    sections = [schema, *schema["$defs"].values()]
    assert len(sections) > 20
    for section in sections:
        assert section["additionalProperties"] is False
    unexplained = [
        f"{section.get('title')}.{key}"
        for section in sections
        for key, value in section["properties"].items()
        if "description" not in value and "const" not in value and "enum" not in value
    ]
    assert unexplained == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_editors_accept_every_recipe(path: Path) -> None:
    data = to_data(read_recipe_file(path))
    Draft202012Validator(json.loads(schema_text())).validate(data)


def test_editors_see_a_misspelt_key() -> None:
    found = list(Draft202012Validator(json.loads(schema_text())).iter_errors({"bas": "resnet18"}))
    assert any("bas" in error.message for error in found)
