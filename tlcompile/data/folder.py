"""Find labelled images in class folders. Opens no image and writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

from tlcompile.data.images import decode_image, read_bytes
from tlcompile.data.samples import Samples
from tlcompile.errors.base import nearest
from tlcompile.errors.data import (
    EmptyClassError,
    MissingFolderError,
    NoImagesError,
    UnknownClassError,
    UnreadableImagesError,
)

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# What others call our splits; taken for classes, or overlooked, they would spoil a run in silence.
OTHER_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
}


def scan_folder(path: str | Path, channels: int = 3) -> dict[str, Samples]:
    """Find the splits of a data folder, their classes and their images.

    `train/<class>/...` with `val/<class>/...` and `test/<class>/...` are used as they are, where
    they exist; `<class>/...` alone gives one split, "all". Images may lie deeper. Hidden files
    and other endings are skipped.

    Returns:
        Samples by split. All have the class list of the training split, sorted as text (so "10"
        comes before "2"); other splits are mapped by name and may lack classes.

    Raises:
        MissingFolderError: The folder is not there, or a split has another name than ours.
        NoImagesError: There are no class folders, or a split holds no image.
        EmptyClassError: A class to train on has no image.
        UnknownClassError: A split has classes that the training split lacks.
    """
    root = Path(path)
    refuse_missing(root)
    if not _is_split(root):
        return {"all": _first_split(root, channels)}
    _refuse_other_name(root, "val")
    splits = {"train": _first_split(root / "train", channels)}
    for name in ("val", "test"):
        if (root / name).is_dir():
            splits[name] = _later_split(root / name, splits["train"].classes, channels)
    return splits


def refuse_missing(root: Path) -> None:
    """Refuse a folder that is not there.

    Raises:
        MissingFolderError: With what is there instead.
    """
    if not root.is_dir():
        raise MissingFolderError(path=str(root), near=_near(root))


def _is_split(root: Path) -> bool:
    # A flat folder may have a class of trains; its folder holds images, not class folders.
    train = root / "train"
    if train.is_dir():
        return bool(_folders(train)) or (root / "val").is_dir()
    _refuse_other_name(root, "train")
    return False


def _refuse_other_name(root: Path, split: str) -> None:
    if (root / split).is_dir():
        return
    for folder in _folders(root):
        if folder.name.lower() in OTHER_NAMES[split] and _folders(folder):
            raise MissingFolderError(path=str(root / split), near=(str(folder),))


def _first_split(root: Path, channels: int) -> Samples:
    found = {folder: images_below(folder) for folder in _folders(root)}
    if not found:
        raise NoImagesError(path=str(root), loose=_loose(root))
    for folder, paths in found.items():
        if not paths:
            raise EmptyClassError(folder=str(folder), classname=folder.name)
    return _samples(found, tuple(folder.name for folder in found), channels)


def _later_split(root: Path, classes: tuple[str, ...], channels: int) -> Samples:
    found = {folder: images_below(folder) for folder in _folders(root)}
    unknown = tuple(folder.name for folder in found if folder.name not in classes)
    if unknown:
        raise UnknownClassError(names=unknown, classes=classes, place=str(root), is_folder=True)
    if not any(found.values()):
        raise NoImagesError(path=str(root), loose=_loose(root))
    return _samples(found, classes, channels)


def _samples(found: dict[Path, list[str]], classes: tuple[str, ...], channels: int) -> Samples:
    paths = tuple(path for inside in found.values() for path in inside)
    labels = (classes.index(folder.name) for folder, inside in found.items() for _ in inside)
    return file_samples(paths, tuple(labels), classes, channels)


def file_samples(
    paths: tuple[str, ...], labels: tuple[int, ...], classes: tuple[str, ...], channels: int
) -> Samples:
    """Make samples of image files; none is opened yet."""
    return Samples(
        ids=paths,
        labels=labels,
        classes=classes,
        fetch=lambda index: read_bytes(paths[index]),
        decode=lambda index, data: decode_image(data, paths[index], channels),
    )


def _folders(root: Path) -> list[Path]:
    found = (p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(found, key=lambda folder: folder.name)


def _loose(root: Path) -> int:
    return sum(map(_is_image, root.iterdir()))


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in ENDINGS


def images_below(folder: Path) -> list[str]:
    """List the images below a folder, sorted; links are followed, a folder is entered once.

    What is named like an image is listed, whatever it is: reading it says what is wrong.

    Raises:
        UnreadableImagesError: A folder may not be read.
    """
    found: list[Path] = []
    entered: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:  # A link to a folder above would never end.
            folders.clear()
            continue
        entered.add(real)
        found += [path for path in map(Path(parent).joinpath, names + folders) if _is_image(path)]
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not _is_image(Path(n)))
    return sorted(map(str, found))


def _refuse_folder(cause: OSError) -> None:
    reason = f"the folder cannot be listed: {cause.strerror}"
    raise UnreadableImagesError(images=((str(cause.filename), reason),)) from cause


def _near(path: Path) -> tuple[str, ...]:
    """List what is there instead, at the first part of the path that is missing."""
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    if missing.exists():
        return ()
    return tuple(str(missing.parent / name) for name in _names_like(missing))


def _names_like(missing: Path) -> list[str]:
    return nearest(missing.name, sorted(p.name for p in missing.parent.iterdir() if p.is_dir()))
