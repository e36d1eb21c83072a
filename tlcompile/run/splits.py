"""From `data` in a recipe to labelled images: train, val, and test where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlcompile.data.answers import Answer
from tlcompile.data.datasets import default_root, open_dataset
from tlcompile.data.digits import load_digits
from tlcompile.data.folder import refuse_missing, scan_folder
from tlcompile.data.hub import open_hub
from tlcompile.data.images import check_images
from tlcompile.data.masks import named_classes, scan_masks, with_mask_classes
from tlcompile.data.samples import Samples, choose, unreadable
from tlcompile.data.split import stratified_split
from tlcompile.data.table import read_table
from tlcompile.data.table_samples import scan_table
from tlcompile.errors.base import Problems, TLCompileError, listed
from tlcompile.errors.data import (
    DataError,
    MissingFolderError,
    UnknownClassError,
    UnreadableImagesError,
)
from tlcompile.errors.schema import MissingKeyError
from tlcompile.errors.training import WrongClassCountError
from tlcompile.recipe.data import Split
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.files import is_file

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
    """Return the number of classes that the recipe tells, or its data, where they are there."""
    told = recipe.known_classes()
    if told is not None:
        return told
    names = known_names(recipe)
    return None if names is None else len(names)


def known_names(recipe: Recipe, order: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """Return the classes that the recipe names, or its folder or table, where there is one.

    They are in alphabetical order, or in `order`, where that has the same names.
    """
    if recipe.data.classes is not None:
        return recipe.data.classes
    if columns := recipe.data.named_by_columns(recipe.task):
        return columns
    try:
        names = _names_there(recipe)
    except TLCompileError:  # `check` needs no data; `train` says what is wrong with it
        return None
    return order if names is not None and sorted(names) == sorted(order) else names


def _names_there(recipe: Recipe) -> tuple[str, ...] | None:
    data = recipe.data
    if data.csv is not None and Path(data.csv).is_file():
        return next(iter(_table(recipe, 3, lambda _text: None).values())).classes or None
    if data.csv is not None or data.folder is None or not Path(data.folder).is_dir():
        return None
    if recipe.task == "segmentation":
        return named_classes(data.folder)
    return next(iter(scan_folder(data.folder).values())).classes


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
        drawn = Split(column=recipe.data.split.column)
        if "val" in found and recipe.data.split != drawn:
            say("data.split is not used: there are validation images of their own")
        splits = _split(recipe, found, order)
        _refuse_too_few(recipe, splits)
        _say_about_classes(recipe, splits, say)
        return splits
    except TLCompileError as error:
        raise _placed(recipe, error) from error.__cause__


def splits_at_hand(recipe: Recipe, channels: int) -> Splits | None:
    """Find the images of a recipe where they are at hand, and need no download."""
    place = recipe.data.csv or recipe.data.folder or " "
    if recipe.data.dataset != "digits" and not Path(place).exists():
        return None
    try:
        return open_splits(recipe, channels, lambda _line: None)
    except TLCompileError:  # a plan needs no data; `train` says what is wrong with them
        return None


def refuse_unknown_classes(recipe: Recipe) -> None:
    """Refuse `data.classes` that the folder or table has not, where that is there.

    Raises:
        UnknownClassError: With the first of them.
    """
    named = recipe.data.classes
    if named is None or recipe.task not in ("classification", "binary"):
        return
    try:
        there = _names_there(recipe)
    except TLCompileError:  # `check` needs no data; `train` says what is wrong with it
        return
    unknown = tuple(name for name in named if there is not None and name not in there)
    if there is not None and unknown:
        key = ("data", "classes", named.index(unknown[0]))
        error = UnknownClassError(names=unknown, classes=there, place="data.classes", key=key)
        raise error.at(recipe.where(key))


def absent(recipe: Recipe) -> list[str]:
    """Say what `train` will want and is not there, and what it will not use: nobody else needs it."""
    data, weights = recipe.data, recipe.base.weights
    files = {"data.csv": data.csv, "base.weights": weights if is_file(weights) else None}
    lines = [
        f"{key}: there is no file '{path}', which train needs"
        for key, path in files.items()
        if path is not None and not Path(path).expanduser().is_file()
    ]
    if data.folder is not None and not Path(data.folder).is_dir():
        lines.append(f"data.folder: there is no folder '{data.folder}', which train needs")
    own = data.csv is None and data.folder is not None and (Path(data.folder) / "val").is_dir()
    if own and data.split != Split(column=data.split.column):
        lines.append("data.split is not used: there are validation images of their own")
    return lines


def _refuse_too_few(recipe: Recipe, splits: Splits) -> None:
    """Refuse a choice among one class, and a yes or no among three."""
    names = {"": splits.classes} if isinstance(recipe.task, str) else splits.train.names
    for name, answer in _answers(recipe).items():
        found = names[name]
        chooses = answer.task in ("classification", "segmentation")
        if (answer.task == "binary" and len(found) != 2) or (chooses and len(found) < 2):
            key = ("task", name, "task") if name else ("task",)
            raise WrongClassCountError(task=answer.task, found=found, key=key)


def _say_about_classes(recipe: Recipe, splits: Splits, say: Say) -> None:
    """Say what is easily taken for something else: the order of numbers, a split without a class."""
    if recipe.data.classes is None and _sorts_otherwise_as_numbers(splits.classes):
        say(f"classes     sorted as text, not as numbers: {listed(splits.classes)}")
    for word, samples in splits.named().items():
        absent = [name for name, count in samples.counts().items() if not count]
        if absent and word != "train" and samples.labels:
            say(f"classes     {word} has no image of: {listed(absent)}")


def _sorts_otherwise_as_numbers(names: Sequence[str]) -> bool:
    if not all(name.isdecimal() for name in names):
        return False
    return list(names) == sorted(names) != sorted(names, key=int)


def check_readable(recipe: Recipe, splits: Iterable[Samples]) -> None:
    """Decode every image once; the bundled digits are whole.

    Raises:
        UnreadableImagesError: At least one file is bad; holds them all.
    """
    if recipe.data.dataset == "digits":
        return
    bad = [one for split in splits for one in unreadable(split, recipe.run.workers)]
    if bad:
        raise _placed(recipe, UnreadableImagesError(images=tuple(bad)))


@contextlib.contextmanager
def naming_all_bad(paths: Sequence[str], workers: int) -> Iterator[None]:
    """Where one image of a run cannot be read, raise an error that names all that cannot."""
    try:
        yield
    except DataError:
        check_images(paths, workers)
        raise


def _placed(recipe: Recipe, error: TLCompileError) -> TLCompileError:
    """Return an error of the data with its place in the recipe; of several, each with its own."""
    if isinstance(error, Problems):
        return replace(error, errors=tuple(_placed(recipe, one) for one in error.errors))
    if error.where is None:
        error.key = error.key or ("data", _source(recipe) or "folder")
    return error.at(recipe.where(error.key))


def _source(recipe: Recipe) -> str | None:
    """Return the key that says where the images are."""
    keys = ("csv", "folder", "dataset", "huggingface")
    return next((key for key in keys if getattr(recipe.data, key) is not None), None)


def _answers(recipe: Recipe) -> dict[str, Answer]:
    """Return the columns to predict, by output; of one output alone by an empty name."""
    task = recipe.task
    if isinstance(task, str):
        return {"": Answer(task, recipe.data.columns_of(task))}
    return {
        name: Answer(one.task, one.target or (name,), f"task.{name}.target")
        for name, one in task.items()
    }


def _find(recipe: Recipe, channels: int, say: Say) -> dict[str, Samples]:
    data, workers = recipe.data, recipe.run.workers
    match _source(recipe):
        case "csv":
            found = _table(recipe, channels, say)
        case "dataset" if data.dataset == "digits":
            found = {"all": load_digits(channels)}
        case "dataset":
            found = open_dataset(str(data.dataset), default_root(), channels, say=say)
        case "huggingface":
            found = open_hub(
                str(data.huggingface), _answers(recipe), image=data.image,
                cache=default_root() / "huggingface", channels=channels, say=say,
            )  # fmt: skip
        case "folder" if recipe.task == "segmentation":
            found = scan_masks(str(data.folder), channels)
        case "folder":
            found = scan_folder(str(data.folder), channels)
        case _:
            refuse_no_data(recipe)
    if recipe.task == "segmentation":
        names = data.classes or (named_classes(data.folder) if data.folder else None)
        return with_mask_classes(found, names, workers)
    return found


def open_place(
    recipe: Recipe, place: str, channels: int, say: Say, classes: tuple[str, ...] | None = None
) -> Samples:
    """Return the images of another folder or table, which is read as the recipe's own data are.

    Args:
        recipe: Says what is to be predicted, and from which columns.
        place: A folder, or a CSV.
        channels: 3 for RGB, 1 for grey.
        say: Takes lines for the user.
        classes: Of masks, in the order of their values.
    """
    kind = "csv" if Path(place).suffix == ".csv" else "folder"
    own = dict.fromkeys(("folder", "csv", "dataset", "huggingface"))
    data = recipe.data.model_copy(update={**own, kind: place, "split": Split(), "classes": classes})
    found = _find(recipe.model_copy(update={"data": data}), channels, say)
    return found.get("all") or found.get("test") or found.get("val") or found["train"]


def _table(recipe: Recipe, channels: int, say: Say) -> dict[str, Samples]:
    data, path = recipe.data, str(recipe.data.csv)
    return scan_table(
        path,
        _answers(recipe),
        image=data.image or "image",
        split=data.split.column,
        root=data.folder or str(Path(path).parent),
        channels=channels,
        say=say,
    )


def refuse_no_data(recipe: Recipe) -> None:
    """Refuse a recipe that does not say where its images are, or names what is not there.

    Raises:
        MissingKeyError: It names neither a folder nor a data set.
        DataError: Its folder or its table is missing.
    """
    if _source(recipe) is None:
        meaning = "where the images are: class folders, or train/ and val/ with class folders"
        error = MissingKeyError(name="folder", section="data", meaning=meaning, key=("data",))
        raise error.at(recipe.where(error.key))
    data = recipe.data
    try:
        if data.csv is not None and not Path(data.csv).is_file():
            read_table(data.csv)  # says why
        if data.folder is not None:
            refuse_missing(Path(data.folder))
    except MissingFolderError as error:
        error.key = ("data", "folder")
        raise error.at(recipe.where(error.key)) from None
    except TLCompileError as error:
        raise _placed(recipe, error) from error.__cause__


def _split(recipe: Recipe, found: dict[str, Samples], order: tuple[str, ...]) -> Splits:
    data, seed = recipe.data, recipe.fine_tune.seed
    classes = None if recipe.task == "segmentation" else data.classes  # masks' values have names
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
