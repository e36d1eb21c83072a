"""The JSON Schema of recipes as they are written: with the short forms, and names as text."""

from __future__ import annotations

import json
from typing import Any

from tlcompile.recipe.load import SHORT_FORMS
from tlcompile.recipe.schema import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Return the schema of a recipe file."""
    schema = Recipe.model_json_schema(mode="validation", by_alias=True)
    definitions = schema["$defs"]
    for path, key in SHORT_FORMS.items():
        owner = schema if len(path) == 1 else definitions["FineTune"]
        _allow_short(owner["properties"], path[-1], key)
    _allow_short(definitions["OutputTask"]["properties"], "loss", "name")
    for key in ("upto", "only"):
        _allow_one(definitions["Freeze"]["properties"], key)
    _as_the_section(definitions["Phase"]["properties"], schema["properties"]["freeze"])
    for name, field in Recipe.model_fields.items():
        schema["properties"][name].setdefault("description", field.description)
    return {**schema, "$schema": DIALECT, "title": "A recipe of tlcompile"}


def _allow_short(properties: dict[str, Any], name: str, key: str) -> None:
    """Let a section also be one value, or for `upto` a list of them."""
    long = properties[name]
    described = {k: long.pop(k) for k in ("description", "default") if k in long}
    short: list[dict[str, Any]] = [
        {"type": ["string", "number"], "description": f"short for {key}"}
    ]
    if key == "upto":
        short.append({"type": "array", "description": "several freeze points"})
    properties[name] = {**described, "anyOf": [long, *short]}


def _allow_one(properties: dict[str, Any], name: str) -> None:
    """Let a list of one also be its item."""
    listed = properties[name]
    described = {k: listed.pop(k) for k in ("description", "default", "title") if k in listed}
    listed["items"]["anyOf"].append({"type": "number"})
    properties[name] = {**described, "anyOf": [listed, *listed["items"]["anyOf"]]}


def _as_the_section(phase: dict[str, Any], freeze: dict[str, Any]) -> None:
    """Let a phase freeze in each form that the section has."""
    phase["freeze"] |= {"anyOf": [*freeze["anyOf"], {"type": "null"}]}


def schema_text() -> str:
    """Return the schema as schemas/recipe.schema.json has it."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True) + "\n"
