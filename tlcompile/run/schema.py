"""Print the JSON Schema of recipes, from which editors complete and check keys."""

from __future__ import annotations

import argparse

from tlcompile.recipe.json_schema import schema_text
from tlcompile.recipe.reference import reference_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--markdown", action="store_true", help="a table of keys for people")


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    text = reference_text() if options.markdown else schema_text()
    print(text, end="")  # not through rich, which would fold long lines
    return 0
