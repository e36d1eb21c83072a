"""From a file and overrides to a valid Recipe: read, spell out short forms, override, validate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from tlcompile.errors.schema import BadValueError
from tlcompile.recipe.inherit import inherit
from tlcompile.recipe.nodes import NOWHERE, Entry, Mapping, Node, Scalar, Sequence
from tlcompile.recipe.overrides import COMMAND_LINE, Override, apply_override, parse_override
from tlcompile.recipe.scalars import to_data, to_yaml
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.validate import validated
from tlcompile.recipe.yaml_reader import read_recipe_file, read_recipe_text

# A section written as one value is short for a mapping with this key.
SHORT_FORMS: dict[tuple[str, ...], str] = {
    ("base",): "model",
    ("freeze",): "upto",
    ("data",): "folder",
    ("fine_tune", "optimizer"): "name",
    ("fine_tune", "schedule"): "name",
    ("fine_tune", "early_stop"): "patience",
    ("fine_tune", "clip"): "norm",
    ("fine_tune", "loss"): "name",
}


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, apply overrides in order, and validate the result.

    Args:
        path: A YAML file.
        overrides: Texts such as "freeze.upto=layer3" or "~remove.classifier.6".

    Raises:
        RecipeError: One problem, with its place.
        Problems: All problems at once.
    """
    column, parsed = 1, []
    for text in overrides:
        parsed.append(parse_override(text, column))
        column += len(text) + 1
    return recipe_from(read_recipe(path), parsed, default_name(path))


def read_recipe(path: str | Path) -> Mapping:
    """Read a file into a tree, short forms spelled out, so that an override reaches every value."""
    return spell_out(read_recipe_file(path))


def recipe_from(root: Mapping, overrides: Iterable[Override], name: str) -> Recipe:
    """Apply overrides to a tree and validate it; `name` is used where the recipe has none."""
    for override in overrides:
        root = spell_out(apply_override(root, override))
    recipe = validated(inherit(root), name)
    _refuse_escape(recipe)
    return recipe


def complete(recipe: Recipe) -> Recipe:
    """Return a recipe that was written in Python with what it takes from the run it starts from.

    One that was read from a file has it already.
    """
    if recipe.base.run is None or recipe._source is not None:
        return recipe
    written = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return recipe_from(read_recipe_text(to_yaml(written), NOWHERE.file), (), recipe.name)


def _refuse_escape(recipe: Recipe) -> None:
    """Refuse a file that names an output folder elsewhere; the user's own command line may.

    A recipe from a stranger is data: it writes under the folder that it is run in.
    """
    key = ("run", "output_dir")
    where = recipe.where(key)
    folder = PurePath(recipe.run.output_dir)
    if where and where.file != COMMAND_LINE and (folder.is_absolute() or ".." in folder.parts):
        wanted = "a folder below the current one; only the command line may name another"
        raise BadValueError(
            name="run.output_dir", found=str(folder), wanted=wanted, key=key, where=where
        )


def default_name(path: str | Path) -> str:
    """Return the file's name without its ending, with other characters as `_`."""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(path).stem)[:80].lstrip("_.-")
    return stem or "recipe"


def spell_out(root: Mapping) -> Mapping:
    """Return the tree with every short form as the mapping that it stands for."""
    for path, key in SHORT_FORMS.items():
        root = _spell(root, path, key)
    return root


def _spell(node: Mapping, path: tuple[str, ...], key: str) -> Mapping:
    first, *rest = path
    entry = node.items.get(first)
    if entry is None:
        return node
    value: Node = entry.value
    if rest:
        if not isinstance(value, Mapping):
            return node
        value = _spell(value, tuple(rest), key)
    elif isinstance(value, Scalar | Sequence) and not _is_null(value):
        value = Mapping({key: Entry(entry.key_span, value)}, value.span)
    return Mapping({**node.items, first: Entry(entry.key_span, value)}, node.span)


def _is_null(value: Node) -> bool:
    return isinstance(value, Scalar) and value.plain and to_data(value) is None
