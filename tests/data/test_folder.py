from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tlcompile.data.folder import scan_folder
from tlcompile.data.samples import Samples
from tlcompile.errors.data import (
    EmptyClassError,
    MissingFolderError,
    NoImagesError,
    UnknownClassError,
)

MakeTree = Callable[..., Path]


def by_name(samples: Samples) -> list[tuple[str, str]]:
    return [
        (samples.classes[label], Path(path).name)
        for label, path in zip(samples.labels, samples.ids, strict=True)
    ]


def test_flat_folder_gives_one_split(make_tree: MakeTree) -> None:
    splits = scan_folder(make_tree("bees/1.png", "ants/2.jpg", "ants/1.png"))
    assert list(splits) == ["all"]
    assert splits["all"].classes == ("ants", "bees")
    assert by_name(splits["all"]) == [("ants", "1.png"), ("ants", "2.jpg"), ("bees", "1.png")]


def test_read_gives_the_image_of_the_path(make_tree: MakeTree) -> None:
    samples = scan_folder(make_tree("bees/1.png", "ants/2.png", "ants/1.png"))["all"]
    assert [int(samples.read(i)[0, 0, 0]) for i in range(3)] == [2, 1, 0]
    assert samples.read(0).shape == (3, 4, 4)


def test_channels_reach_the_reader(make_tree: MakeTree) -> None:
    assert scan_folder(make_tree("a/1.png"), channels=1)["all"].read(0).shape == (1, 4, 4)


def test_splits_are_used_as_they_are(make_tree: MakeTree) -> None:
    splits = scan_folder(make_tree("train/a/1.png", "train/b/1.png", "val/a/2.png", "test/b/3.png"))
    assert list(splits) == ["train", "val", "test"]
    assert by_name(splits["val"]) == [("a", "2.png")]
    assert by_name(splits["test"]) == [("b", "3.png")]


def test_val_is_mapped_by_name_where_a_class_is_missing(make_tree: MakeTree) -> None:
    tree = make_tree(
        "train/a/1.png", "train/b/1.png", "train/c/1.png", "val/b/2.png", "val/c/2.png"
    )
    val = scan_folder(tree)["val"]
    assert val.classes == ("a", "b", "c")
    assert val.labels == (1, 2)
    assert val.counts() == {"a": 0, "b": 1, "c": 1}


def test_train_alone_leaves_the_split_to_the_caller(make_tree: MakeTree) -> None:
    assert list(scan_folder(make_tree("train/a/1.png", "test/a/1.png"))) == ["train", "test"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_extra_class_names_both_and_the_nearest(make_tree: MakeTree, split: str) -> None:
    tree = make_tree("train/roses/1.png", "train/tulips/1.png", f"{split}/rose/1.png")
    with pytest.raises(UnknownClassError, match="did you mean 'roses'") as caught:
        scan_folder(tree)
    assert caught.value.names == ("rose",)
    assert caught.value.classes == ("roses", "tulips")
    assert caught.value.place == str(tree / split)


def test_empty_class_to_train_on_is_named(make_tree: MakeTree) -> None:
    tree = make_tree("train/a/1.png", "val/a/1.png")
    (tree / "train" / "b").mkdir()
    (tree / "train" / "b" / "only.txt").write_bytes(b"no image")
    with pytest.raises(EmptyClassError) as caught:
        scan_folder(tree)
    assert (caught.value.classname, caught.value.folder) == ("b", str(tree / "train" / "b"))


def test_empty_class_in_val_is_allowed(make_tree: MakeTree) -> None:
    tree = make_tree("train/a/1.png", "train/b/1.png", "val/a/1.png")
    (tree / "val" / "b").mkdir()
    assert scan_folder(tree)["val"].counts() == {"a": 1, "b": 0}


def test_split_without_images(make_tree: MakeTree) -> None:
    tree = make_tree("train/a/1.png", "val/1.png")
    with pytest.raises(NoImagesError, match="class folder: 1"):
        scan_folder(tree)


def test_images_outside_of_class_folders(make_tree: MakeTree) -> None:
    with pytest.raises(NoImagesError, match="class folder: 2"):
        scan_folder(make_tree("1.png", "2.png", "notes.txt"))


def test_hidden_files_and_other_endings_are_skipped(make_tree: MakeTree) -> None:
    tree = make_tree(
        "a/1.PNG", "a/.2.png", "a/3.heic", "a/4.txt", "a/.thumbs/5.png", ".git/6.png", "7.png"
    )
    assert by_name(scan_folder(tree)["all"]) == [("a", "1.PNG")]


def test_images_deeper_in_a_class_are_found_once_in_spite_of_links(make_tree: MakeTree) -> None:
    tree = make_tree("a/2.png", "a/deep/1.png")
    os.symlink(tree / "a", tree / "a" / "deep" / "loop")
    assert by_name(scan_folder(tree)["all"]) == [("a", "2.png"), ("a", "1.png")]


def test_linked_class_folder_is_followed(make_tree: MakeTree) -> None:
    tree = make_tree("a/1.png")
    os.symlink(make_tree("2.png", root="elsewhere"), tree / "b")
    assert scan_folder(tree)["all"].counts() == {"a": 1, "b": 1}


def test_numbers_sort_as_text(make_tree: MakeTree) -> None:
    splits = scan_folder(make_tree("2/1.png", "10/1.png", "1/1.png"))
    assert splits["all"].classes == ("1", "10", "2")


def test_class_of_trains_is_a_class(make_tree: MakeTree) -> None:
    assert scan_folder(make_tree("train/1.png", "car/1.png"))["all"].classes == ("car", "train")


@pytest.mark.parametrize(
    ("tree", "missing", "found"),
    [
        (("train/a/1.png", "valid/a/1.png"), "val", "valid"),
        (("Train/a/1.png", "Val/a/1.png"), "train", "Train"),
        (("training/a/1.png", "val/a/1.png"), "train", "training"),
    ],
)
def test_splits_by_other_names_are_not_overlooked(
    make_tree: MakeTree, tree: tuple[str, ...], missing: str, found: str
) -> None:
    root = make_tree(*tree)
    with pytest.raises(MissingFolderError) as caught:
        scan_folder(root)
    assert caught.value.path == str(root / missing)
    assert caught.value.near == (str(root / found),)


def test_missing_folder_names_the_nearest_sibling(make_tree: MakeTree) -> None:
    tree = make_tree("flowers/roses/1.png", "other/a/1.png")
    with pytest.raises(MissingFolderError, match="did you mean") as caught:
        scan_folder(tree / "flower")
    assert caught.value.near == (str(tree / "flowers"),)
    assert caught.value.exit_code == 2


def test_missing_folder_looks_where_the_path_breaks(make_tree: MakeTree) -> None:
    tree = make_tree("flowers/roses/1.png")
    with pytest.raises(MissingFolderError) as caught:
        scan_folder(tree / "flowrs" / "roses" / "deep")
    assert caught.value.near == (str(tree / "flowers"),)


def test_file_is_no_folder(make_tree: MakeTree) -> None:
    with pytest.raises(MissingFolderError) as caught:
        scan_folder(make_tree("a/1.png") / "a" / "1.png")
    assert caught.value.near == ()
