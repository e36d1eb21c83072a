"""List, verify or shrink the stored features.

ls      one line for each set of rows, the least recently used first
verify  read every byte; damaged files are put aside, and their rows computed when they are wanted
gc      evict the least recently used sets until the rest fits into the budget
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcompile.errors.recipe import CommandLineError
from tlcompile.errors.run import RunError, shown_path
from tlcompile.recipe.sizes import parse_bytes
from tlcompile.run.say import say, show_number, table

if TYPE_CHECKING:
    from tlcompile.features.store import BadFile, Store, StoredSet

ACTIONS = ("ls", "verify", "gc")
COLUMNS = ("model", "vertex", "precision", "size", "rows", "bytes", "seconds", "last used", "key")
HELP = "tlcompile cache --help"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", metavar="ls|verify|gc", help="what to do")
    parser.add_argument(
        "--cache", metavar="FOLDER", help="default: $TLCOMPILE_CACHE, else the user's cache"
    )
    parser.add_argument(
        "--budget", metavar="SIZE", help="gc: what may stay, as 20GB or 1.5GiB; default 50GB"
    )
    parser.add_argument("--all", action="store_true", help="gc: nothing stays")
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def run(options: argparse.Namespace) -> int:
    """Look into the store, or shrink it; 1 where something is damaged."""
    _refuse_nonsense(options)
    # Here, because they import torch: 1.3 s that --help and a wrong word need not take.
    from tlcompile.features.root import cache_root
    from tlcompile.features.store import Store
    from tlcompile.recipe.schema import Run

    root = cache_root() if options.cache is None else Path(options.cache)
    if root.exists() and not root.is_dir():
        raise CommandLineError(problem=f"--cache: '{root}' is no folder", help=HELP)
    store = Store(root)
    budget = parse_bytes(options.budget or Run().cache_budget)
    match options.action:
        case "ls":
            told, good = _listed(store, root, budget), True
        case "verify":
            told, good = _verified(store)
        case _:
            told, good = _collected(store, 0 if options.all else budget), True
    data, lines = told
    say(json.dumps(data) if options.json else "\n".join(lines))
    return 0 if good else 1
