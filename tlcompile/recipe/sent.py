"""A recipe as plain data for another process, in which every value keeps its place in the file."""

from __future__ import annotations

from typing import Any

from tlcompile.errors.base import Span
from tlcompile.recipe.nodes import NOWHERE, Entry, Mapping, Node, Scalar, Sequence
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.validate import validated
from tlcompile.recipe.yaml_reader import read_recipe_text


def to_plain(recipe: Recipe) -> Any:
    """Return a recipe as JSON's types; `from_plain` builds one that is equal, and as well placed."""
    tree = recipe._source
    if tree is None:  # written in Python
        written = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
        tree = read_recipe_text(to_yaml(written), NOWHERE.file)
    return {"name": recipe.name, "tree": _plain(tree)}


def from_plain(data: Any) -> Recipe:
    """Return the recipe that `to_plain` was given."""
    tree = _node(data["tree"])
    assert isinstance(tree, Mapping)
    return validated(tree, data["name"])


def _plain(node: Node) -> Any:
    place = [node.span.file, node.span.line, node.span.column]
    match node:
        case Scalar():
            return {"text": node.text, "plain": node.plain, "at": place}
        case Sequence():
            return {"items": [_plain(item) for item in node.items], "at": place}
        case Mapping():
            entries = {
                key: [[e.key_span.file, e.key_span.line, e.key_span.column], _plain(e.value)]
                for key, e in node.items.items()
            }
            return {"entries": entries, "at": place}


def _node(data: Any) -> Node:
    span = Span(*data["at"])
    if "text" in data:
        return Scalar(data["text"], data["plain"], span)
    if "items" in data:
        return Sequence([_node(item) for item in data["items"]], span)
    entries = data["entries"].items()
    return Mapping({key: Entry(Span(*at), _node(value)) for key, (at, value) in entries}, span)
