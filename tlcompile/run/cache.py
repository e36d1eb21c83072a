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

from tlcompile import durable
from tlcompile.errors.recipe import CommandLineError
from tlcompile.errors.run import RunError, quoted_path, shown_path
from tlcompile.recipe.sizes import parse_bytes
from tlcompile.run.say import say, show_number, table_lines

if TYPE_CHECKING:
    from tlcompile.store.store import Store, StoredSet

ACTIONS = ("ls", "verify", "gc")
COLUMNS = ("model", "vertex", "precision", "size", "rows", "bytes", "seconds", "last used", "key")
HELP = "tlcompile cache --help"

Told = tuple[dict[str, Any], list[str]]  # for a machine, and for people


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("action", metavar="ls|verify|gc", help="what to do")
    parser.add_argument(
        "--cache", metavar="FOLDER", help="default: $TLCOMPILE_CACHE, else the user's cache"
    )
    parser.add_argument(
        "--budget", metavar="SIZE", help="gc: what may stay, as 20GB or 1.5GiB; default: 50GB"
    )
    parser.add_argument("--all", action="store_true", help="gc: every set goes")
    parser.add_argument("--json", action="store_true", help="print data instead of text")


def run(options: argparse.Namespace) -> int:
    """Look into the store, or shrink it; 1 where something is damaged."""
    _refuse_nonsense(options)
    # Here, because they import torch: 1.3 s that --help and a wrong word need not take.
    from tlcompile.features.root import cache_root
    from tlcompile.recipe.run import Run
    from tlcompile.store.store import Store

    folder = cache_root() if options.cache is None else Path(options.cache)
    if folder.exists() and not folder.is_dir():
        raise _wrong(f"--cache: '{folder}' is no folder")
    store = Store(folder)
    budget = parse_bytes(options.budget or Run().cache_budget)
    match options.action:
        case "ls":
            data, lines = _listed(store, budget)
        case "verify":
            data, lines = _verified(store)
        case _:
            data, lines = _collected(store, 0 if options.all else budget)
    if not store.cache.is_dir():
        lines.append(f"there is no folder '{shown_path(store.cache)}': nothing was stored there")
    say(json.dumps(data) if options.json else "\n".join(lines))
    return 0 if data.get("ok", True) else 1


def _refuse_nonsense(options: argparse.Namespace) -> None:
    if options.action not in ACTIONS:
        problem = f"`tlcompile cache` does not know '{options.action}'"
        raise CommandLineError(problem=problem, help=HELP, word=options.action, known=ACTIONS)
    given = [f"--{name}" for name in ("budget", "all") if getattr(options, name)]
    if given and options.action != "gc":
        raise _wrong(f"{given[0]} has no effect on `tlcompile cache {options.action}`: only on gc")
    if len(given) > 1:
        raise _wrong("--budget and --all say two things: keep one of them")
    try:
        parse_bytes(options.budget or "0 B")
    except ValueError as error:
        raise _wrong(f"--budget: {error}") from error


def _wrong(problem: str) -> CommandLineError:
    return CommandLineError(problem=problem, help=HELP)


# The three actions


def _listed(store: Store, budget: int) -> Told:
    sets, aside = store.sets(), store.quarantined()
    data = {**_total(store, sets), "budget": budget, "quarantined": len(aside)}
    lines = [*_table(sets), f"{_counted(sets)} in {shown_path(store.cache)}"]
    lines.append(f"budget {_bytes(budget)}, unless a recipe's run.cache_budget says otherwise")
    if aside:
        where = quoted_path(aside[0].parent.parent)
        files = "1 damaged file was" if len(aside) == 1 else f"{len(aside)} damaged files were"
        lines.append(f"{files} put aside; to remove them: rm -r {where}")
    return data, lines


def _verified(store: Store) -> Told:
    sets = store.sets()
    damaged = [(bad, _put_aside(store, bad.path)) for bad in store.verify()]
    data = {
        "ok": not damaged,
        **_total(store, sets),
        "damaged": [
            {"path": str(bad.path), "reason": bad.reason, "aside": aside and str(aside)}
            for bad, aside in damaged
        ],
    }
    lines = []
    for bad, aside in damaged:
        where = shown_path(aside) if aside else "left there: it could not be moved"
        lines += [f"{shown_path(bad.path)}: {bad.reason}", f"  now  {where}"]
    if damaged:
        lines.append(f"{len(damaged)} damaged; what is missing is computed when it is wanted")
    else:
        lines.append(f"{_counted(sets)}: every byte is as it was written")
    return data, lines


def _put_aside(store: Store, path: Path) -> Path | None:
    try:
        return durable.put_aside(path, store.root / "quarantine" / path.parent.name)
    except RunError:
        return None  # a cache that is only read


def _collected(store: Store, budget: int) -> Told:
    gone = store.collect(budget)
    left = store.sets()
    data = {**_total(store, left), "budget": budget, "evicted": [_data(one) for one in gone]}
    lines = [*_table(gone), f"evicted {_counted(gone)}", f"left {_counted(left)}"]
    if sum(one.num_bytes for one in left) > budget:
        lines.append(f"more than {_bytes(budget)}: runs that are computing keep their sets")
    return data, lines


# Words


def _total(store: Store, sets: Sequence[StoredSet]) -> dict[str, Any]:
    return {
        "root": str(store.cache),
        "bytes": sum(one.num_bytes for one in sets),
        "sets": [_data(one) for one in sets],
    }


def _counted(sets: Sequence[StoredSet]) -> str:
    rows, num_bytes = (sum(getattr(one, name) for one in sets) for name in ("rows", "num_bytes"))
    return f"{len(sets)} set{'' if len(sets) == 1 else 's'}, {rows:,} rows, {_bytes(num_bytes)}"


def _bytes(number: int) -> str:
    return show_number(number, "B")


def _table(sets: Sequence[StoredSet]) -> list[str]:
    return [*table_lines(COLUMNS, [_cells(one) for one in sets]), ""] if sets else []


def _cells(one: StoredSet) -> tuple[str, ...]:
    data = _data(one)
    return (
        data["model"] or "any",
        data["vertex"],
        data["precision"] or data["dtype"],
        "x".join(map(str, data["size"])),
        f"{one.rows:,}",
        f"{one.num_bytes:,}",
        f"{one.seconds:.1f}",
        datetime.fromtimestamp(one.last_used).strftime("%Y-%m-%d %H:%M"),
        data["key"][:8],
    )


def _data(one: StoredSet) -> dict[str, Any]:
    made_of = one.about.ingredients
    return {
        "key": one.about.key,
        "model": made_of.get("base"),
        "vertex": one.about.vertex,
        "precision": made_of.get("arithmetic", {}).get("precision"),
        "size": list(next(iter(made_of.get("input", {}).values()), one.about.shape)),
        "shape": list(one.about.shape),
        "dtype": one.about.dtype,
        "rows": one.rows,
        "bytes": one.num_bytes,
        "blocks": one.blocks,
        "seconds": one.seconds,
        "last_used": one.last_used,
    }
