from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tlcompile.data.digests import (
    KEY_BYTES,
    SharedImages,
    digests_of,
    shared_between_splits,
    worded,
)
from tlcompile.data.digits import load_digits
from tlcompile.data.folder import scan_folder
from tlcompile.errors.data import UnreadableImagesError


def test_a_digest_is_that_of_the_files_bytes(make_tree) -> None:  # type: ignore[no-untyped-def]
    samples = scan_folder(make_tree("a/1.png", "a/2.png", "b/3.png"))["all"]
    wanted = [hashlib.sha256(Path(name).read_bytes()).digest() for name in samples.ids]
    for workers in (0, 3):
        keys = digests_of(samples, workers=workers)
        assert (keys.shape, keys.dtype) == ((3, 32), np.uint8)
        assert [key.tobytes() for key in keys] == wanted


def test_name_place_and_date_change_no_digest(make_tree) -> None:  # type: ignore[no-untyped-def]
    folder = make_tree("a/1.png", "b/2.png")
    before = digests_of(scan_folder(folder)["all"], workers=0)
    shutil.move(folder / "a" / "1.png", folder / "a" / "deep.PNG")
    os.utime(folder / "b" / "2.png", (0, 0))
    shutil.copytree(folder, folder.parent / "moved")
    after = digests_of(scan_folder(folder.parent / "moved")["all"], workers=0)
    assert np.array_equal(before, after)


def test_a_changed_pixel_of_a_file_of_the_same_size_and_date_is_seen(make_tree) -> None:  # type: ignore[no-untyped-def]
    folder = make_tree("a/1.png")
    path, samples = folder / "a" / "1.png", scan_folder(folder)["all"]
    before, status = digests_of(samples, workers=0), path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert not np.array_equal(digests_of(samples, workers=0), before)


def test_digits_are_known_by_their_pixels() -> None:
    digits = load_digits(channels=3)
    keys = digests_of(digits, workers=0)
    assert np.array_equal(keys, digests_of(load_digits(channels=1), workers=2))
    assert len(np.unique(keys, axis=0)) == len(digits)
    assert keys[7].tobytes() == hashlib.sha256(digits.read(7)[0].numpy().tobytes()).digest()


def test_all_that_cannot_be_read_are_told_at_once(make_tree) -> None:  # type: ignore[no-untyped-def]
    folder = make_tree(*(f"a/{number}.png" for number in range(5)))
    samples = scan_folder(folder)["all"]
    for number in (1, 3):
        (folder / "a" / f"{number}.png").unlink()
    with pytest.raises(UnreadableImagesError) as caught:
        digests_of(samples, workers=2)
    assert [Path(path).name for path, _ in caught.value.images] == ["1.png", "3.png"]


def test_progress_is_told_for_every_sample(make_tree) -> None:  # type: ignore[no-untyped-def]
    samples = scan_folder(make_tree("a/1.png", "a/2.png"))["all"]
    told: list[int] = []
    digests_of(samples, workers=2, advance=told.append)
    assert sum(told) == 2


def test_no_samples_have_no_digests() -> None:
    assert digests_of(load_digits().subset([]), workers=2).shape == (0, 32)


def test_images_in_two_splits_are_found_by_their_bytes() -> None:
    rows = np.arange(6, dtype=np.uint8).repeat(KEY_BYTES).reshape(6, KEY_BYTES)
    digests = {"train": rows[[0, 1, 2]], "val": rows[[3, 1]], "test": rows[[2, 4, 3]]}
    found = shared_between_splits(digests)
    assert [(one.splits, one.pairs) for one in found] == [
        (("train", "val"), ((1, 1),)),
        (("train", "test"), ((2, 0),)),
        (("val", "test"), ((0, 2),)),
    ]
    ids = {"train": ["a", "b", "c"], "val": ["d", "e"]}
    assert worded(found[0], ids) == "1 image is in train and in val, to the byte: b = e"


def test_of_many_shared_images_the_first_pairs_are_named() -> None:
    shared = SharedImages(("train", "val"), tuple((n, n) for n in range(5)))
    ids = {"train": list("abcde"), "val": list("vwxyz")}
    words = "5 images are in train and in val, to the byte: a = v, b = w, c = x, ..."
    assert worded(shared, ids) == words
