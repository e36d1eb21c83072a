"""Finished runs, as recipes and commands name them: found, verified, and only ever read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tlcompile.durable.manifest import MANIFEST, read_manifest, read_verified
from tlcompile.errors.ancestry import UnfinishedRunError
from tlcompile.errors.finding import AmbiguousRunError, UnknownRunError
from tlcompile.errors.run import NotABundleError
from tlcompile.recipe.nodes import Mapping
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.validate import validated
from tlcompile.recipe.yaml_reader import read_recipe_text

PLACES = ("runs", "sweeps")
FILES = ("model.safetensors", "recipe.yaml", "record.json", "golden.safetensors")
WEIGHTS, RECIPE, RECORD, GOLDEN = FILES
FROZEN = "frozen.safetensors"  # beside WEIGHTS, where training left something as it was
RECORDED = ("classes", "preprocessing", "task", "chunk_size", "base")


@dataclass(frozen=True)
class FinishedRun:
    """A run with a bundle: its best weights, and all that is needed to build its model again.

    Attributes:
        folder: The run's folder, or the bundle's where it stands alone.
        bundle: The folder with the files.
        tree: What it was trained by: its recipe, resolved.
        recipe: The same, validated.
        record: What ran. `ancestry` has one entry for each run that it started from, oldest first.
    """

    folder: Path
    bundle: Path
    tree: Mapping
    recipe: Recipe
    record: dict[str, Any]

    def read(self, name: str) -> bytes:
        """Read one of FILES, or of `weights`.

        Raises:
            DamagedFileError: It is not as it was written.
        """
        return read_verified(self.bundle, name)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, in the order of the outputs."""
        return tuple(self.record["classes"])

    @property
    def weights(self) -> tuple[str, ...]:
        """Return the names of the files that have its weights: each tensor is in one of them."""
        return (WEIGHTS, FROZEN) if FROZEN in read_manifest(self.bundle) else (WEIGHTS,)

    @property
    def weights_sha256(self) -> str:
        """Return the digest of its weights, which are not read: that of the file, as its manifest has it.

        Of two files that of both digests, with a space between them.
        """
        manifest = read_manifest(self.bundle)
        digests = [manifest[name].sha256 for name in self.weights]
        return (
            digests[0]
            if len(digests) == 1
            else hashlib.sha256(" ".join(digests).encode()).hexdigest()
        )

    @property
    def on_own_module(self) -> bool:
        """Tell whether it all began with a user's own module, whose code is nowhere here."""
        return bool(self.root["weights"] == "given")

    @property
    def root(self) -> dict[str, Any]:
        """Return what is recorded of the base that the first of its ancestors started from."""
        first: dict[str, Any] = next(iter(self._ancestry), self.record)["base"]
        return first

    @cached_property
    def steps(self) -> tuple[tuple[Recipe, int], ...]:
        """Every recipe that led to its model, oldest first, each with its number of classes."""
        earlier = [(self._recipe_of(run["recipe"]), len(run["classes"])) for run in self._ancestry]
        return (*earlier, (self.recipe, len(self.classes)))

    def as_ancestor(self) -> list[dict[str, Any]]:
        """Return the `ancestry` of a run that starts from this one: its folder may go away."""
        own = {
            "run": str(self.folder),
            "sha256": self.weights_sha256,
            "base": self.record["base"],
            "classes": list(self.classes),
            "recipe": self.read(RECIPE).decode(),
        }
        return [*self._ancestry, own]

    @property
    def _ancestry(self) -> list[dict[str, Any]]:
        return list(self.record.get("ancestry", ()))

    def _recipe_of(self, text: str) -> Recipe:
        return validated(read_recipe_text(text, str(self.bundle / RECORD)), "ancestor")


def read_run(folder: str | Path) -> FinishedRun:
    """Read a finished run as far as a recipe needs it: not its weights.

    Args:
        folder: The run's folder, or its bundle/ alone.

    Raises:
        UnfinishedRunError: It has not saved its model.
        NotABundleError: It is something else than a run.
        DamagedFileError: A file is not as it was written.
    """
    path = Path(folder)
    bundle = path / "bundle" if (path / "bundle").is_dir() else path
    missing = tuple(name for name in (MANIFEST, *FILES) if not (bundle / name).is_file())
    if missing and bundle == path and (path / "metrics.csv").is_file():
        raise UnfinishedRunError(path=path)
    if missing:
        raise NotABundleError(path=bundle, missing=missing)
    text = read_verified(bundle, RECIPE).decode()
    tree = read_recipe_text(text, str(bundle / RECIPE))
    return FinishedRun(path, bundle, tree, validated(tree, "bundle"), _record(bundle))


def _record(bundle: Path) -> dict[str, Any]:
    """Return a bundle's record, which holds all that is asked of it."""
    try:
        record = json.loads(read_verified(bundle, RECORD))
    except ValueError:
        record = None
    found: dict[str, Any] = record if isinstance(record, dict) else {}
    missing = tuple(f"{RECORD}: {name}" for name in RECORDED if name not in found)
    if missing:
        raise NotABundleError(path=bundle, missing=missing)
    return found


def find_run(name: str) -> Path:
    """Return the folder that a name stands for.

    Args:
        name: A folder, or the beginning of the name of a finished run: in the folder that it
            names, else under runs/ and sweeps/.

    Raises:
        UnknownRunError: Nothing has this name.
        AmbiguousRunError: Several do.
    """
    path = Path(name)
    if path.is_dir():
        return path
    places = (path.parent,) if path.parent != Path() else tuple(map(Path, PLACES))
    runs = [f for place in places for f in (*place.glob("*"), *place.glob("*/*"))]
    finished = sorted(f for f in runs if (f / "bundle").is_dir())
    exact = [f for f in finished if f.name == path.name]
    found = exact or [f for f in finished if f.name.startswith(path.name)]
    if not found:
        raise UnknownRunError(name=name, runs=tuple(map(str, finished)))
    if len(found) > 1:
        raise AmbiguousRunError(name=name, runs=tuple(map(str, found)))
    return found[0]
