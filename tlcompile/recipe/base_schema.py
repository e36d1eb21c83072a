"""The JSON Schema of recipes on one base: an editor completes its vertices, regions and stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tlcompile.recipe.json_schema import recipe_schema

KEYWORDS = {
    "head": "everything but the classifier",
    "none": "nothing is frozen",
    "all": "everything is frozen",
}


@dataclass(frozen=True)
class BaseNames:
    """The names that a recipe can write, each with what an editor shows beside it.

    Attributes:
        model: The base's name in the zoo; None: it is a run, or the user's own module.
        vertices: In the order of computation.
        regions: Prefixes of vertices' names.
        stages: Of stage1 to stage4, those that the model has.
    """

    model: str | None
    vertices: Mapping[str, str]
    regions: Mapping[str, str]
    stages: Mapping[str, str]

    def places(self) -> dict[str, str]:
        """Return what can be removed: regions, then vertices."""
        return {**self.regions, **self.vertices}


def schema_for(names: BaseNames) -> dict[str, Any]:
    """Return the schema of a recipe on this base.

    Names of the base alone may stand in freeze, remove and resize; in inputs, feeds and outputs
    those of added layers may, too, so there every text is allowed.
    """
    schema = recipe_schema()
    definitions = schema["$defs"]
    definitions["Place"] = _words(names.places())
    definitions["Point"] = _words({**KEYWORDS, **names.stages, **names.places()})
    definitions["Reading"] = {
        "anyOf": [_words(names.places()), {"type": ["string", "number"], "description": "added"}]
    }
    if names.model is not None:
        _only_this_model(schema, names.model)
    _complete_freeze(schema)
    for key in ("remove", "resize"):
        _complete_keys(schema["properties"][key], names.places())
    for owner, key in _readers(schema):
        owner[key] = _one_or_several(owner[key], "Reading")
    title = f"A recipe of tlcompile on {names.model or 'this base'}"
    return {**schema, "title": title}


def _words(described: Mapping[str, str]) -> dict[str, Any]:
    """Return the schema of one of these words; a whole number may stand for its text (`3`)."""
    words: dict[str | int, str] = {}
    for name, text in described.items():
        words[name] = text
        if name.isdigit() and str(int(name)) == name:
            words[int(name)] = text
    return {"enum": list(words), "enumDescriptions": list(words.values())}


def _only_this_model(schema: dict[str, Any], model: str) -> None:
    described = schema["$defs"]["Base"]["properties"]["model"].get("description", "")
    schema["$defs"]["Base"]["properties"]["model"] = {"const": model, "description": described}
    short = schema["properties"]["base"]["anyOf"]
    short[1:] = [{"const": model, "description": "short for model"}]


def _complete_freeze(schema: dict[str, Any]) -> None:
    """Let freeze points be the base's names, in each of their forms."""
    definitions = schema["$defs"]
    definitions["VertexPoint"]["properties"]["vertex"] = {"$ref": "#/$defs/Place"}
    points = [{"$ref": f"#/$defs/{name}"} for name in ("Point", "VertexPoint", "StagePoint")]
    points += [{"$ref": "#/$defs/MatchPoint"}]
    several = [*points, {"type": "array", "items": {"anyOf": points}}]
    freeze = definitions["Freeze"]["properties"]
    freeze["upto"] = _described(freeze["upto"]) | {"anyOf": several}
    alone = [{"$ref": "#/$defs/Place"}, {"$ref": "#/$defs/MatchPoint"}]
    several_alone = [*alone, {"type": "array", "items": {"anyOf": alone}}]
    freeze["only"] = _described(freeze["only"]) | {"anyOf": several_alone}
    short = schema["properties"]["freeze"]
    short["anyOf"] = [{"$ref": "#/$defs/Freeze"}, points[0], several[-1]]
    definitions["Phase"]["properties"]["freeze"]["anyOf"] = [*short["anyOf"], {"type": "null"}]


def _complete_keys(section: dict[str, Any], places: Mapping[str, str]) -> None:
    """Let the keys of a section be the base's names, and nothing else."""
    value = section.pop("additionalProperties")
    section.pop("propertyNames", None)
    section["properties"] = {
        name: {"allOf": [value], "description": text} for name, text in places.items()
    }
    section["additionalProperties"] = False


def _readers(schema: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each place of the schema that holds names of vertices to read."""
    yield schema["properties"], "outputs"
    for definition in schema["$defs"].values():
        properties = definition.get("properties", {})
        if "layer" in properties:
            yield from ((properties, key) for key in ("inputs", "feeds") if key in properties)


def _one_or_several(old: dict[str, Any], definition: str) -> dict[str, Any]:
    one = {"$ref": f"#/$defs/{definition}"}
    kinds: list[dict[str, Any]] = [one, {"type": "array", "items": one}]
    if any(kind.get("type") == "null" for kind in old.get("anyOf", ())):
        kinds.append({"type": "null"})
    return _described(old) | {"anyOf": kinds}


def _described(old: Mapping[str, Any]) -> dict[str, Any]:
    return {key: old[key] for key in ("description", "default", "title") if key in old}
