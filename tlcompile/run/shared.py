"""What a run makes for itself, and what the points of a sweep make once for all of them.

Results never depend on it: whatever is shared is equal, and what a point trains is its own copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from tlcompile.compiler import compile_opened, compile_template, weights_of
from tlcompile.data.digests import Keys, digests_of
from tlcompile.errors.data import DataError
from tlcompile.features.fingerprint import describe
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.saved import FrozenFile
from tlcompile.model.template import Template
from tlcompile.recipe.schema import Recipe
from tlcompile.run.record import base_record
from tlcompile.run.splits import Say, Splits, check_readable, known_classes, open_splits
from tlcompile.store.store import About, FeatureSet, Store
from tlcompile.zoo.base import BaseModel
from tlcompile.zoo.open import open_base

T = TypeVar("T")

# Of fine_tune: what no compiled model depends on, but by its initial weights on the seed. A new key
# that is missing here costs compiling anew, and nothing else.
NUMBERS = frozenset(
    {
        *("seed", "optimizer", "early_stop", "schedule", "epochs", "batch_size", "sampling"),
        *("accumulate", "monitor", "loss", "label_smoothing", "class_weights", "no_decay"),
        "bias_lr_factor",
    }
)


class Own:
    """Makes all that a run needs for itself alone."""

    def base(self, recipe: Recipe, module: nn.Module | None) -> tuple[BaseModel, dict[str, Any]]:
        """Open a base; return it with what the record says of it."""
        opened = open_base(recipe, module)
        return opened, base_record(opened)  # before the compiler takes the tensors

    def splits(self, recipe: Recipe, opened: BaseModel, say: Say) -> Splits:
        """Find the images."""
        return open_splits(recipe, opened.preprocessing.channels, say, opened.categories)

    def models(
        self, recipe: Recipe, opened: BaseModel, num_classes: int, module: nn.Module | None
    ) -> tuple[CompiledModel, ...]:
        """Compile every phase; all models share the tensors of the first.

        Args:
            recipe: What the user asked for.
            opened: The base; it gives its tensors away.
            num_classes: Of the data.
            module: Your own base, where it is none of the zoo's.
        """
        first = compile_opened(recipe, opened, num_classes)
        return together(first, _later(recipe, module, num_classes))

    def digests(self, recipe: Recipe, splits: Splits) -> dict[str, Keys]:
        """Return the digest of every image, by split.

        Raises:
            UnreadableImagesError: Some cannot be read; all of them, of all splits.
        """
        named, workers = splits.named(), recipe.run.workers
        try:
            return {name: digests_of(part, workers=workers) for name, part in named.items()}
        except DataError:
            check_readable(recipe, splits.all())
            raise

    def describe(
        self,
        recipe: Recipe,  # noqa: ARG002
        phase: int,  # noqa: ARG002
        model: CompiledModel,
        **how: Any,
    ) -> tuple[About, ...]:
        """Name the rows of each boundary tensor of a phase; see features/fingerprint.py."""
        return describe(model, **how)

    def store(self, root: Path) -> Store:
        """Return the store of features in a folder."""
        return Store(root)

    def golden(self, recipe: Recipe, compute: Callable[[], T]) -> T:  # noqa: ARG002
        """Return what the frozen part computes of the golden sample."""
        return compute()

    def frozen(self, recipe: Recipe, compute: Callable[[], T]) -> T:  # noqa: ARG002
        """Return the digests of what the first phase freezes."""
        return compute()

    def frozen_file(
        self,
        recipe: Recipe,  # noqa: ARG002
        model: CompiledModel,
        names: frozenset[str],
    ) -> FrozenFile:
        """Return the file of what no phase trains."""
        return FrozenFile.of(model, names)

    def not_kept(self) -> frozenset[str]:
        """Return the keys of sets that shall not be stored."""
        return frozenset()


class Shared(Own):
    """Makes each thing once, for the first point that needs it; equal recipes get equal things.

    A base stays as it was opened: points train copies of what moves, and share what is frozen.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], Any] = {}
        self._live: frozenset[str] = frozenset()

    def once(self, what: str, key: Any, make: Callable[[], T]) -> T:
        """Return what was made under this key before, or make it."""
        full = (what, _text(key))
        if full not in self._made:
            self._made[full] = make()
        found: T = self._made[full]
        return found

    def base(self, recipe: Recipe, module: nn.Module | None) -> tuple[BaseModel, dict[str, Any]]:
        """Open a base once."""
        assert module is None, "a sweep begins from the zoo or from a run"
        return self.once("base", base_key(recipe), lambda: super(Shared, self).base(recipe, None))

    def splits(self, recipe: Recipe, opened: BaseModel, say: Say) -> Splits:
        """Find the images once; each point is told what is to be said of them."""
        given = (opened.preprocessing.channels, opened.categories)

        def found() -> tuple[Splits, list[str]]:
            said: list[str] = []
            return super(Shared, self).splits(recipe, opened, said.append), said

        splits, said = self.once("splits", (images_key(recipe), *given), found)
        for line in said:
            say(line)
        return splits

    def digests(self, recipe: Recipe, splits: Splits) -> dict[str, Keys]:
        """Hash every image once."""
        key = (images_key(recipe), [part.ids for part in splits.all()])
        return self.once("digests", key, lambda: super(Shared, self).digests(recipe, splits))

    def models(
        self, recipe: Recipe, opened: BaseModel, num_classes: int, module: nn.Module | None = None
    ) -> tuple[CompiledModel, ...]:
        """Compile once what differs in numbers alone; fill it with the base's weights each time."""
        assert module is None, "a sweep begins from the zoo or from a run"
        template, later = self._templates(recipe, num_classes)
        base = self.once("weights", base_key(recipe), lambda: weights_of(recipe, opened))
        phases = (template.model, *later)
        moving = set[str]().union(
            *(model.state_dict().keys() - model.frozen.tensors for model in phases)
        )
        return together(template.filled(base, recipe.fine_tune.seed, moving), later)

    def surveyed(
        self, recipe: Recipe, opened: BaseModel, num_classes: int
    ) -> tuple[CompiledModel, ...]:
        """Return models to look at, one for all points that differ in numbers; `drop` them after."""
        key = (model_key(recipe), num_classes)
        return self.once("surveyed", key, lambda: self.models(recipe, opened, num_classes))

    def forget(self) -> None:
        """Forget all that holds weights."""
        self.drop("base", "weights", "model", "surveyed", "rows", "golden", "frozen", "frozen file")

    def drop(self, *what: str) -> None:
        """Forget what was made: all of these kinds."""
        self._made = {key: made for key, made in self._made.items() if key[0] not in what}

    def describe(
        self, recipe: Recipe, phase: int, model: CompiledModel, **how: Any
    ) -> tuple[About, ...]:
        """Name the rows of a frozen part once: it is what no point moves."""
        words = {name: str(value) for name, value in how.items()}
        key = (model_key(recipe), phase, words)
        return self.once("rows", key, lambda: describe(model, **how))

    def store(self, root: Path) -> Store:
        """Return a store whose sets stay open."""
        return self.once("store", str(root), lambda: _OpenStore(root))

    def golden(self, recipe: Recipe, compute: Callable[[], T]) -> T:
        """Compute it once for each frozen part."""
        return self.once("golden", model_key(recipe), compute)

    def frozen(self, recipe: Recipe, compute: Callable[[], T]) -> T:
        """Hash once what points share: each proves at its end that it has not moved."""
        return self.once("frozen", model_key(recipe), compute)

    def frozen_file(
        self, recipe: Recipe, model: CompiledModel, names: frozenset[str]
    ) -> FrozenFile:
        """Write once what no phase trains; bundles of other points have links to it."""
        key = base_key(recipe) if names.isdisjoint(model.origins) else model_key(recipe)
        return self.once("frozen file", (key, sorted(names)), lambda: FrozenFile.of(model, names))

    def known_classes(self, recipe: Recipe) -> int | None:
        """Return how many classes a recipe or its data tell."""
        return self.once("classes", images_key(recipe), lambda: known_classes(recipe))

    def proved(self, recipe: Recipe, classes: int) -> CompiledModel:
        """Return a recipe compiled on meta, once for what differs in numbers alone."""
        return self._templates(recipe, classes)[0].model

    def _templates(self, recipe: Recipe, classes: int) -> tuple[Template, list[CompiledModel]]:
        """Compile every phase on meta: what is proved is what is filled with weights later."""
        key = (model_key(recipe), classes)
        return self.once("model", key, lambda: _compiled(recipe, classes))

    def decide(self, live: frozenset[str]) -> None:
        """Take the sets that no point may store: they would drive out what the sweep has planned."""
        self._live = live

    def not_kept(self) -> frozenset[str]:
        """Return the keys of sets that shall not be stored."""
        return self._live


class _OpenStore(Store):
    """A store that opens, and so verifies, each set once."""

    def __init__(self, cache: Path) -> None:
        super().__init__(cache)
        self._sets: dict[str, FeatureSet] = {}

    def open(self, about: About) -> FeatureSet:
        """Return the set that is open; what has come since is found by `refresh`."""
        if about.key not in self._sets:
            self._sets[about.key] = super().open(about)
        return self._sets[about.key]


def together(first: CompiledModel, later: Sequence[CompiledModel]) -> tuple[CompiledModel, ...]:
    """Return the models of all phases over the tensors of the first."""
    models = (first, *(first.frozen_as(other) for other in later))
    first.hold_freeze()
    return models


def _later(recipe: Recipe, module: nn.Module | None, num_classes: int) -> list[CompiledModel]:
    """Compile the phases behind the first on meta."""
    return [
        compile_opened(phase, open_base(recipe, module, load=False), num_classes, real=False)
        for phase in recipe.phases()[1:]
    ]


def _compiled(recipe: Recipe, classes: int) -> tuple[Template, list[CompiledModel]]:
    opened = open_base(recipe, load=False)
    return compile_template(recipe, opened, classes), _later(recipe, None, classes)


def base_key(recipe: Recipe) -> Any:
    """Return what decides an opened base; without weights, its values come from the seed."""
    seed = recipe.fine_tune.seed if recipe.base.weights == "none" else None
    inputs = {name: one.model_dump(mode="json") for name, one in recipe.inputs.items()}
    return (recipe.base.model_dump(mode="json"), inputs, seed)


def model_key(recipe: Recipe) -> Any:
    """Return what decides a compiled model, but for the initial weights of its new layers."""
    skipped: dict[str, Any] = dict.fromkeys(
        ("name", "version", "data", "features", "run", "sweep"), True
    )
    skipped["fine_tune"] = set(NUMBERS)
    dumped = recipe.model_dump(mode="json", by_alias=True, exclude=skipped)
    return (dumped, base_key(recipe))


def images_key(recipe: Recipe) -> Any:
    """Return what decides the list of images."""
    data = recipe.data.model_dump(mode="json", exclude={"augment"})
    task = recipe.model_dump(mode="json", include={"task"})
    drawn = recipe.data.per_class is not None
    return (data, task, recipe.fine_tune.seed if drawn else None)


def _text(key: Any) -> str:
    return json.dumps(key, sort_keys=True, default=str)
