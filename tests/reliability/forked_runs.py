"""Train in children of a process that has only imported torch, and kill them.

A script, run by test_killed_extraction.py: a fork costs 0.2 s, a new process 3, and a process that
has computed must not be forked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from reliability.small_runs import CHUNK, many_blocks, net, recipe_of
from tlcompile.compiler import compile_opened
from tlcompile.data.digests import digests_of
from tlcompile.data.loading import load_images
from tlcompile.features.prefix import Prefix, Rows
from tlcompile.run.splits import open_splits
from tlcompile.run.train import train_recipe
from tlcompile.store.store import Store
from tlcompile.zoo.open import open_base

SPREAD = 0.04  # seconds: some blocks
START = 0.3  # seconds until the first row is computed, about


def note(path: Path, text: str) -> None:
    """Append at once: a kill loses nothing of it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, text.encode())
    os.close(fd)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def start(root: Path, name: str, cache: str) -> int:
    """Fork a child that trains; one byte in NAME.rows for each row that it computes."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        many_blocks()
        compute = Prefix.__call__

        def call(self: Prefix, *inputs: torch.Tensor) -> Rows:
            note(root / f"{name}.rows", "." * len(inputs[0]))
            return compute(self, *inputs)

        Prefix.__call__ = call  # type: ignore[method-assign]
        recipe = recipe_of(root / "data", root / cache)
        train_recipe(
            recipe,
            root / name,
            base=net(),
            say=lambda line: note(root / f"{name}.said", f"{line}\n"),
        )
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> bool:
    """Say whether a child has ended, well."""
    found, status = os.waitpid(child, os.WNOHANG)
    assert not status, f"a child that nobody killed ended with {status}"
    return bool(found)


def kill_some(root: Path, kills: int) -> int:
    """Kill training again and again, until it ends by itself; return how often."""
    draw = random.Random(0)
    for number in range(kills):
        child = start(root, "killed", "killed_cache")
        before, since = size(root / "killed.rows"), time.monotonic()
        early = draw.random() < 0.1  # most hit the extraction
        patience = draw.uniform(0, START) if early else 60.0
        while size(root / "killed.rows") == before and time.monotonic() - since < patience:
            if ended(child):
                return number
            time.sleep(0.001)
        time.sleep(0 if early else draw.uniform(0, SPREAD))
        if ended(child):
            return number
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return kills


def finish(*children: int) -> None:
    """Wait for children that nobody kills."""
    for child in children:
        _, status = os.waitpid(child, 0)
        assert not status, f"a child that nobody killed ended with {status}"


def wrong_rows(root: Path, cache: str) -> int:
    """Count the stored rows that are not what computing them now gives, and those that lack."""
    recipe = recipe_of(root / "data", root / cache)
    opened = open_base(recipe, net())
    splits = open_splits(recipe, 3, print)
    model = compile_opened(recipe, opened, len(splits.classes))
    prefix = Prefix(model, CHUNK, torch.device("cpu"))
    (boundary,) = model.boundary
    (stored,) = [one for one in Store(root / cache).sets() if one.about.vertex == boundary.vertex]
    features = Store(root / cache).open(stored.about)
    features.refresh()
    wrong = abs(stored.rows - sum(map(len, splits.all())))
    for samples in splits.all():
        images = load_images(samples, range(len(samples)), opened.preprocessing, workers=0)
        (live,) = prefix(images)
        places = features.locate(digests_of(samples, workers=0))
        wrong += int((places < 0).sum())
        wrong += sum(
            not torch.equal(a, b) for a, b in zip(features.gather(places), live, strict=True)
        )
    return wrong


def main(root: Path, kills: int) -> dict[str, Any]:
    """Return what happened."""
    torch.set_num_threads(1)
    finish(start(root, "whole", "whole_cache"))
    finish(*[start(root, name, "shared_cache") for name in ("first", "second")])
    killed = kill_some(root, kills)
    finish(start(root, "killed", "killed_cache"))
    wrong = {name: wrong_rows(root, f"{name}_cache") for name in ("shared", "killed")}
    return {"kills": killed, "wrong": wrong}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
