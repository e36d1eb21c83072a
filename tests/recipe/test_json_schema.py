"""The JSON Schema that editors read: every key has help, short forms are allowed."""

from __future__ import annotations

import json
from typing import Any

from tlcompile.recipe.json_schema import DIALECT, recipe_schema, schema_text
from tlcompile.recipe.schema import Recipe


def test_it_says_what_it_is() -> None:
    schema = json.loads(schema_text())
    assert schema["$schema"] == DIALECT
    assert schema["title"] == "A recipe of tlcompile"
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False


def test_every_key_of_a_section_has_help() -> None:
    schema = recipe_schema()
    for name in ("Data", "Split", "Augment", "Features", "FineTune", "EarlyStop", "Run", "Base"):
        for key, entry in schema["$defs"][name]["properties"].items():
            assert entry.get("description"), f"{name}.{key}"


def test_short_forms_are_allowed() -> None:
    schema = recipe_schema()

    def kinds(entry: dict[str, Any]) -> set[str]:
        found: set[str] = set()
        for one in entry["anyOf"]:
            kind = one.get("type", "section")
            found |= {kind} if isinstance(kind, str) else set(kind)
        return found

    assert "string" in kinds(schema["properties"]["base"])
    assert kinds(schema["properties"]["freeze"]) >= {"string", "array"}
    assert "string" in kinds(schema["$defs"]["FineTune"]["properties"]["optimizer"])
    assert kinds(schema["$defs"]["Run"]["properties"]["track"]) == {"string", "array"}


def test_the_default_optimizer_needs_no_name() -> None:
    definitions = recipe_schema()["$defs"]
    assert "name" not in definitions["AdamW"].get("required", [])
    assert "name" in definitions["Sgd"]["required"]
