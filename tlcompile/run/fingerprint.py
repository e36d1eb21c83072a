"""What must be equal for a run to go on as if it had never stopped."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from tlcompile.errors.resume import OtherRunError
from tlcompile.features.arithmetic import arithmetic, decoder
from tlcompile.recipe.layers.plugins import allowed_plugins
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import recipe_digest
from tlcompile.run.record import images_digest
from tlcompile.run.splits import Splits
from tlcompile.zoo.timm import PREFIX

ABSENT: Final = "none"
# What changes more than last bits; the rest is the machine's and its libraries'.
DECISIVE: Final = ("recipe", "weights", "images", "contents", "devices")
# Keys of `run` that decide bits, and those that do not: tests/run/test_fingerprint.py has each.
DECIDES_BITS: Final = ("micro_batch", "precision", "compile", "deterministic", "sharding")


def fingerprint_of(
    recipe: Recipe,
    base: Mapping[str, Any],
    splits: Splits,
    device: torch.device,
    devices: int = 1,
) -> dict[str, Any]:
    """Name what decides a run's result, to the bit.

    Args:
        recipe: What the user asked for.
        base: What `base_record` says of it.
        splits: The images.
        device: Where it trains.
        devices: How many train together.
    """
    run = recipe.run.model_dump(mode="json")
    return {
        "recipe": recipe_digest(recipe),
        "weights": base["sha256"],
        "images": {name: images_digest(part) for name, part in splits.named().items()},
        "devices": devices,
        "run": {name: run[name] for name in DECIDES_BITS if name in run},
        "tlcompile": importlib.metadata.version("tlcompile"),
        "packages": _packages(str(base.get("model"))),
        "decoder": decoder(),
        "arithmetic": arithmetic("exact", recipe.fine_tune.batch_size, device),
    }


def _packages(model: str) -> dict[str, str]:
    """Return the versions of packages whose code the model runs, beside torch's own."""
    found = {plugin.package: plugin.version for plugin in allowed_plugins().values()}
    timm = {"timm": importlib.metadata.version("timm")} if model.startswith(PREFIX) else {}
    return {**found, **timm}


def refuse_other(
    saved: Mapping[str, Any],
    now: Mapping[str, Any],
    folder: Path,
    *,
    inexact: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> None:
    """Refuse to go on under another fingerprint.

    Args:
        saved: Of the run when it was begun.
        now: Of this process.
        folder: The run's.
        inexact: Whether other last bits are accepted, as of another machine.
        say: Takes the difference that is accepted.

    Raises:
        OtherRunError: The difference, named.
    """
    found = list(_differences(saved, now))
    if not found:
        return
    decisive = [path for path, *_ in found if path[0] in DECISIVE]
    worded = tuple(f"{' '.join(path)}: {old}, now {new}" for path, old, new in found)
    if decisive or not inexact:
        raise OtherRunError(path=folder, differences=worded, inexact_helps=not decisive)
    say(f"inexact     its last bits are no longer those of one run: {'; '.join(worded)}")


def _differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            yield from _differences(old.get(name, ABSENT), new.get(name, ABSENT), (*path, name))
    elif old != new:
        yield path, old, new
