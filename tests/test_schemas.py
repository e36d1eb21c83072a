"""schemas/ and docs/recipe.md are what the code generates now."""

from __future__ import annotations

import json
from pathlib import Path

from tlcompile.recipe.json_schema import schema_text
from tlcompile.recipe.reference import reference_text

ROOT = Path(__file__).parents[1]


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
