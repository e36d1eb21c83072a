"""From `data` in a recipe to labelled images: train, val, and test where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlcompile.data.datasets import default_root, open_dataset
from tlcompile.data.digits import load_digits
from tlcompile.data.folder import scan_folder
from tlcompile.data.images import check_images
from tlcompile.data.samples import Samples, choose
from tlcompile.data.split import stratified_split
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.data import DataError
from tlcompile.errors.schema import MissingKeyError
from tlcompile.errors.training import WrongClassCountError
from tlcompile.recipe.data import Split
from tlcompile.recipe.schema import Recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Splits:
    """Labelled images; the class order of train is the order of the model's outputs."""

    train: Samples
    val: Samples | None
    test: Samples | None

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names, in the order of the outputs."""
        return self.train.classes

    def sizes(self) -> dict[str, int]:
        """Return how many images each split has."""
        return {name: len(split) for name, split in self.named().items()}

    def all(self) -> list[Samples]:
        """Return the splits that are there."""
        return list(self.named().values())

    def named(self) -> dict[str, Samples]:
        """Return the splits that are there, by name."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}


def known_classes(recipe: Recipe) -> int | None:
    """Return the number of classes that the recipe tells, or its folder, where there is one."""
    told = recipe.known_classes()
    if told is not None:
        return told
    names = known_names(recipe)
    return None if names is None else len(names)


def known_names(recipe: Recipe, order: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """Return the classes that the recipe names, or its folder, where there is one.

    A folder's are in alphabetical order, or in `order`, where that has the same names.
    """
    if recipe.data.classes is not None:
        return recipe.data.classes
    if recipe.data.folder is not None and Path(recipe.data.folder).is_dir():
        try:
            names = next(iter(scan_folder(recipe.data.folder).values())).classes
            return order if sorted(names) == sorted(order) else names
        except DataError:  # `check` needs no data; `train` says what is wrong with it
            return None
    return None


def open_splits(recipe: Recipe, channels: int, say: Say, order: tuple[str, ...] = ()) -> Splits:
    """Find the images of a recipe; none is read yet.

    Args:
        recipe: Its `data`, `task` and `fine_tune.seed` are read.
        channels: 3 for RGB, 1 for grey.
        say: Takes one line about a download.
        order: Classes that the base knows; where the images have the same, they come in this order.

    Raises:
        DataError: A folder, a class or an image is missing.
    """
    try:
        found = _find(recipe, channels, say)
        if "val" in found and recipe.data.split != Split():
            say("data.split is not used: the images have a val/ folder of their own")
        splits = _split(recipe, found, order)
        if recipe.task == "binary" and len(splits.classes) != 2:
            raise WrongClassCountError(task="binary", wanted=2, found=splits.classes, key=("task",))
        return splits
    except TLCompileError as error:
        raise _placed(recipe, error) from error.__cause__


def check_readable(recipe: Recipe, splits: Iterable[Samples]) -> None:
    """Decode every image file once; a bundled data set has none.

    Raises:
        UnreadableImagesError: At least one file is bad; holds them all.
    """
    if recipe.data.dataset == "digits":
        return
    try:
        check_images([path for split in splits for path in split.ids], recipe.run.workers)
    except TLCompileError as error:
        raise _placed(recipe, error) from error.__cause__


@contextlib.contextmanager
def naming_all_bad(paths: Sequence[str], workers: int) -> Iterator[None]:
    """Where one image of a run cannot be read, raise an error that names all that cannot."""
    try:
        yield
    except DataError:
        check_images(paths, workers)
        raise


def _placed(recipe: Recipe, error: TLCompileError) -> TLCompileError:
    """Return an error of the data with its place in the recipe."""
    error.key = error.key or ("data", "dataset" if recipe.data.dataset else "folder")
    return error.at(recipe.where(error.key))


def _find(recipe: Recipe, channels: int, say: Say) -> dict[str, Samples]:
    data = recipe.data
    if data.dataset == "digits":
        return {"all": load_digits(channels)}
    if data.dataset is not None:
        return open_dataset(data.dataset, default_root(), channels, say=say)
    refuse_no_data(recipe)
    return scan_folder(str(data.folder), channels)


def refuse_no_data(recipe: Recipe) -> None:
    """Refuse a recipe that does not say where its images are.

    Raises:
        MissingKeyError: It names neither a folder nor a data set.
    """
    if recipe.data.folder is None and recipe.data.dataset is None:
        meaning = "where the images are: class folders, or train/ and val/ with class folders"
        error = MissingKeyError(name="folder", section="data", meaning=meaning, key=("data",))
        raise error.at(recipe.where(error.key))


def _split(recipe: Recipe, found: dict[str, Samples], order: tuple[str, ...]) -> Splits:
    data, seed = recipe.data, recipe.fine_tune.seed
    classes = data.classes
    if classes is None and sorted(order) == sorted(next(iter(found.values())).classes):
        classes = order  # a classifier that is kept means these, in this order
    chosen = {name: choose(samples, classes=classes, seed=seed) for name, samples in found.items()}
    train = chosen.get("all") or chosen["train"]
    val = chosen.get("val")
    if val is None:
        train, val = stratified_split(train, data.split.val, data.split.seed)
    if data.per_class is not None:
        train = choose(train, per_class=data.per_class, seed=seed)
    return Splits(train, val if len(val) else None, chosen.get("test"))
