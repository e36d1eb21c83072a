"""Print the JSON Schema of recipes, from which editors complete and check keys."""

from __future__ import annotations

import argparse

from tlcompile.recipe.json_schema import schema_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    del options
    print(schema_text(), end="")  # not through rich, which would fold long lines
    return 0
