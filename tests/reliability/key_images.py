"""Cases of images: which rows of a set are wanted."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reliability.key_world import (
    HIT,
    MISS,
    PLAIN,
    Case,
    Ground,
    Pair,
    Wanted,
    case,
    make_bitmaps,
    row_keys_of,
)
from tlcompile.data import augment
from tlcompile.features.fingerprint import describe_pixels

PIXELS = describe_pixels(PLAIN)
assert PIXELS is not None
SETS = (PIXELS,)


def image_case(table: dict[str, Case], name: str, **recipe: Any) -> Callable[[Any], Any]:
    """Compare the rows of a folder before and after an edit, which may return another folder."""

    def add(edit: Callable[[Path], Path | None]) -> Any:
        def run(ground: Ground) -> Pair:
            folder = make_bitmaps(ground.folder / "images")
            before = row_keys_of(folder)
            after = row_keys_of(edit(folder) or folder, **recipe)
            return Wanted(SETS, before), Wanted(SETS, after)

        case(table, name)(run)
        return edit

    return add


@case(MISS, "one pixel of each image, size and date kept")
def _pixel(ground: Ground) -> Pair:
    folder = make_bitmaps(ground.folder / "images")
    before = row_keys_of(folder)
    for path in folder.rglob("*.bmp"):
        was, data = path.stat(), bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    return Wanted(SETS, before), Wanted(SETS, row_keys_of(folder))


VIEWS: dict[str, Any] = {
    "data": {"augment": {"train": ["random_resized_crop", "rotation"], "seed": 3}},
    "features": {"views": 2},
    "base": {"model": "digits_net", "size": 8},
}


def views_case(name: str, change: Callable[[dict[str, Any], pytest.MonkeyPatch], object]) -> None:
    def run(ground: Ground) -> Pair:
        folder = make_bitmaps(ground.folder / "images")
        before = row_keys_of(folder, "train", **copy.deepcopy(VIEWS))
        sections = copy.deepcopy(VIEWS)
        change(sections, ground.patch)
        after = row_keys_of(folder, "train", **sections)
        return Wanted(SETS, before), Wanted(SETS, after)

    case(MISS, name)(run)


def _augment(sections: dict[str, Any], **change: Any) -> None:
    sections["data"]["augment"] |= change


views_case("views: the seed", lambda s, _: _augment(s, seed=4))
views_case("views: the names", lambda s, _: _augment(s, train=["random_resized_crop"]))
views_case(
    "views: a parameter",
    lambda s, _: _augment(s, train=["random_resized_crop", {"rotation": {"degrees": 16}}]),
)
views_case("views: the order", lambda s, _: _augment(s, train=["rotation", "random_resized_crop"]))
views_case("views: the size", lambda s, _: s["base"].update(size=7))
views_case("views: the code of augmentation", lambda _, p: p.setattr(augment, "VERSION", 99))
views_case("views: none", lambda s, _: [s.pop("features"), s.pop("data")])


@case(MISS, "views: another view of the same images")
def _view(ground: Ground) -> Pair:
    one, two = (_with_views(ground, count) for count in (1, 2))
    return Wanted(SETS, one), Wanted(SETS, two - one)


@case(MISS, "views: mirrored, and as it is")
def _flip(ground: Ground) -> Pair:
    folder = make_bitmaps(ground.folder / "images")
    data = {"augment": {"train": ["horizontal_flip"]}}
    plain = row_keys_of(folder, "train")
    both = row_keys_of(folder, "train", data=data, features={"views": 2})
    assert plain < both
    return Wanted(SETS, plain), Wanted(SETS, both - plain)


@case(HIT, "more views")
def _more_views(ground: Ground) -> Pair:
    two, three = (_with_views(ground, count) for count in (2, 3))
    return Wanted(SETS, two), Wanted(SETS, three)


def _with_views(ground: Ground, count: int) -> frozenset[bytes]:
    folder = make_bitmaps(ground.folder / f"{count} views")
    return row_keys_of(folder, "train", **{**VIEWS, "features": {"views": count}})


@image_case(HIT, "the data set is elsewhere")
def _moved(folder: Path) -> Path:
    return folder.rename(folder.with_name("elsewhere"))


@image_case(HIT, "files have other names")
def _files(folder: Path) -> None:
    for path in list(folder.rglob("*.bmp")):
        path.rename(path.with_name(f"renamed {path.name}"))


@image_case(HIT, "classes have other names")
def _classes(folder: Path) -> None:
    (folder / "ants").rename(folder / "wasps")


@image_case(HIT, "files were touched")
def _touched(folder: Path) -> None:
    for path in folder.rglob("*.bmp"):
        os.utime(path, (1, 1))


@image_case(HIT, "more images")
def _more(folder: Path) -> None:
    path = folder / "ants" / "0.bmp"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    (folder / "ants" / "9.bmp").write_bytes(data)


@image_case(HIT, "fewer images")
def _fewer(folder: Path) -> None:
    (folder / "ants" / "0.bmp").unlink()


@image_case(HIT, "other labels")
def _labels(folder: Path) -> None:
    (folder / "ants" / "0.bmp").rename(folder / "bees" / "9.bmp")


@image_case(HIT, "a copy of an image")
def _twice(folder: Path) -> None:
    shutil.copy(folder / "ants" / "0.bmp", folder / "bees" / "9.bmp")


@image_case(HIT, "another split", data={"split": {"val": 0.5, "seed": 7}})
def _split(folder: Path) -> None:
    pass


@image_case(HIT, "another seed of the run", fine_tune={"seed": 7})
def _seed(folder: Path) -> None:
    pass
