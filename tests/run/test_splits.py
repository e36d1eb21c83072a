"""From `data` in a recipe to splits: every source, every task, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_pictures, make_recipe

from tlcompile.data.loading import load_pixels
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.data import DataError, UnreadableImagesError
from tlcompile.errors.training import WrongClassCountError
from tlcompile.run import shared
from tlcompile.run.parts import parts_of
from tlcompile.run.splits import Splits, check_readable, known_classes, known_names, open_splits
from tlcompile.run.train import train_recipe
from tlcompile.zoo.preprocessing import Preprocessing


def opened(data: dict[str, Any], said: list[str] | None = None, **sections: Any) -> Splits:
    lines: list[str] = [] if said is None else said
    return open_splits(make_recipe(data=data, **sections), 3, lines.append)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write twelve pictures and a table of them, in a folder of its own."""
    make_pictures(tmp_path / "images")
    rows = [
        f"{name}/{number}.png,{name},{number}.5,{'odd' if number % 2 else 'even;' + name},"
        f"{int(number > 2)},{'val' if number == 5 else 'train'}"
        for name in ("ants", "bees")
        for number in range(6)
    ]
    (tmp_path / "birds.csv").write_text("image,label,grams,tags,old,fold\n" + "\n".join(rows))
    return tmp_path / "birds.csv"


def at(table: Path, **more: Any) -> dict[str, Any]:
    return {"csv": str(table), "folder": str(table.parent / "images"), **more}


def test_table_is_split_class_by_class(table: Path) -> None:
    splits = opened(at(table, split={"val": 0.5}))
    assert splits.classes == ("ants", "bees")
    assert splits.train.counts() == {"ants": 3, "bees": 3}
    assert splits.sizes() == {"train": 6, "val": 6}


def test_relative_paths_go_on_from_the_tables_own_folder(table: Path) -> None:
    moved = table.parent / "images" / "birds.csv"
    table.rename(moved)
    assert opened({"csv": str(moved)}).sizes() == {"train": 10, "val": 2}


def test_column_of_splits_is_used(table: Path) -> None:
    splits = opened(at(table, split={"column": "fold"}))
    assert splits.sizes() == {"train": 10, "val": 2}
    assert splits.val is not None
    assert {Path(name).name for name in splits.val.ids} == {"5.png"}


def test_share_that_is_not_used_beside_a_column_is_said(table: Path) -> None:
    said: list[str] = []
    opened(at(table, split={"column": "fold", "val": 0.5}), said)
    assert said == ["data.split is not used: there are validation images of their own"]


def test_subset_and_few_images_of_a_table(table: Path) -> None:
    splits = opened(at(table, classes=["bees", "ants"], per_class=2))
    assert splits.classes == ("bees", "ants")
    assert splits.train.counts() == {"bees": 2, "ants": 2}


def test_several_labels_of_a_table(table: Path) -> None:
    splits = opened(at(table, target="tags", classes=["odd", "bees"]), task="multilabel")
    assert splits.classes == ("odd", "bees")
    row = splits.train.ids.index(str(table.parent / "images" / "bees" / "1.png"))
    assert torch.equal(splits.train.targets().take([(row, 0)]), torch.tensor([[1.0, 0.0]]))


def test_numbers_of_a_table(table: Path) -> None:
    recipe = make_recipe(data=at(table, target=["grams", "old"]), task="regression")
    splits = open_splits(recipe, 3, print)
    assert splits.classes == known_names(recipe) == ("grams", "old")
    taken = splits.train.targets().take([(0, 0)])
    assert isinstance(taken, torch.Tensor)
    assert taken.shape == (1, 2)


def test_several_outputs_of_a_table(table: Path) -> None:
    task = {
        "species": {"task": "classification", "target": "label"},
        "grams": {"task": "regression"},
    }
    splits = opened(at(table), task=task, outputs=["species", "grams"])
    assert splits.train.names == {"species": ("ants", "bees"), "grams": ("grams",)}
    assert splits.sizes() == {"train": 10, "val": 2}


def test_errors_of_the_table_have_its_lines_and_the_recipes_place_where_it_has_none(
    table: Path,
) -> None:
    table.write_text("image,label\nx.png,a\ny.png,b\n")
    with pytest.raises(Problems) as caught:
        opened(at(table))
    assert [str(error.where) for error in caught.value.errors] == [f"{table}:2:1", f"{table}:3:1"]
    with pytest.raises(TLCompileError) as missing:
        opened({"csv": "none.csv"})
    assert missing.value.key == ("data", "csv")
    assert missing.value.where is not None


def test_check_needs_no_data_and_reads_the_table_where_it_is(table: Path) -> None:
    assert known_classes(make_recipe(data={"csv": "none.csv"})) is None
    assert known_classes(make_recipe(data=at(table))) == 2
    assert known_names(make_recipe(data=at(table)), order=("bees", "ants")) == ("bees", "ants")
    assert known_classes(make_recipe(data={"folder": "none"}, task="segmentation")) is None
    table.write_text("no table")
    assert known_classes(make_recipe(data=at(table))) is None


def test_binary_wants_two_classes_of_a_table(table: Path) -> None:
    table.write_text(table.read_text().replace(",bees,", ",bees2,", 1))
    with pytest.raises(WrongClassCountError) as caught:
        opened(at(table), task="binary")
    assert caught.value.found == ("ants", "bees", "bees2")


def test_one_class_is_no_choice(tmp_path: Path) -> None:
    """It trained to 100 % at once, or ended in a traceback of the confusion matrix."""
    alone = make_pictures(tmp_path / "alone", classes=("ants",))
    with pytest.raises(WrongClassCountError, match="wants 2 classes or more") as caught:
        opened({"folder": str(alone)})
    assert caught.value.found == ("ants",)
    assert "another class" in caught.value.fix()


def masks(root: Path, names: int = 4) -> Path:
    for number in range(names):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            value = np.full((4, 4), number, np.uint8)
            Image.fromarray(value).save(root / folder / f"{number}.png")
    return root


def test_masks_are_split_and_their_values_are_the_classes(tmp_path: Path) -> None:
    splits = opened({"folder": str(masks(tmp_path)), "split": {"val": 0.5}}, task="segmentation")
    assert splits.sizes() == {"train": 2, "val": 2}
    assert splits.classes == ("0", "1", "2", "3")


def test_classes_of_masks_have_names(tmp_path: Path) -> None:
    folder = str(masks(tmp_path, 2))
    recipe = make_recipe(data={"folder": folder, "classes": ["sky", "road"]}, task="segmentation")
    assert open_splits(recipe, 3, print).classes == ("sky", "road")
    (tmp_path / "classes.txt").write_text("sea\nland\nair\n")
    named = make_recipe(data={"folder": folder}, task="segmentation")
    assert open_splits(named, 3, print).classes == known_names(named) == ("sea", "land", "air")


def test_damaged_images_of_any_source_are_named_at_once(table: Path) -> None:
    for name in ("ants/0.png", "bees/3.png"):
        (table.parent / "images" / name).write_bytes(b"no image")
    recipe = make_recipe(data=at(table))
    splits = open_splits(recipe, 3, print)
    with pytest.raises(UnreadableImagesError) as caught:
        check_readable(recipe, splits.all())
    assert sorted(Path(path).name for path, _ in caught.value.images) == ["0.png", "3.png"]


def test_labels_that_look_like_numbers_are_said_to_be_sorted_as_text(tmp_path: Path) -> None:
    said: list[str] = []
    make_pictures(tmp_path, ("2", "10"))
    opened({"folder": str(tmp_path)}, said)
    assert said == ["classes     sorted as text, not as numbers: 10, 2"]
    quiet: list[str] = []
    opened({"folder": str(tmp_path), "classes": ["2", "10"]}, quiet)
    make_pictures(tmp_path / "more", ("1", "2"))
    opened({"folder": str(tmp_path / "more")}, quiet)
    assert quiet == []


def test_class_without_images_in_val_is_said(tmp_path: Path) -> None:
    make_pictures(tmp_path / "train", ("ants", "bees", "wasps"))
    make_pictures(tmp_path / "val", ("bees",))
    said: list[str] = []
    opened({"folder": str(tmp_path)}, said)
    assert said == ["classes     val has no image of: ants, wasps"]


def test_masks_follow_the_views_that_the_recipe_draws(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        value = np.arange(64, dtype=np.uint8).reshape(8, 8)
        Image.fromarray(value).save(tmp_path / folder / "0.png")
    recipe = make_recipe(
        data={"folder": str(tmp_path), "augment": {"train": "horizontal_flip"}},
        features={"views": 2},
        task="segmentation",
    )
    splits = open_splits(recipe, 1, print)
    preparing = Preprocessing(None, 8, (0.0,), (1.0,), "bilinear", 1)
    part = next(iter(parts_of(recipe, splits.named(), 8)))
    masks = part.targets(preparing, workers=0).take([(0, 0), (0, 1)])
    images = load_pixels(
        part.samples, [(0, 0), (0, 1)], preparing, workers=0, augmentations=part.augmentation
    )
    assert torch.equal(masks, images[:, 0].long())
    assert torch.equal(masks[1], masks[0].flip(-1))


@pytest.mark.parametrize("data", [{"folder": "nowhere"}, {"csv": "nowhere.csv"}])
def test_missing_data_are_told_before_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, str]
) -> None:
    def fetched(*_given: Any) -> None:
        pytest.fail("weights came first")

    monkeypatch.setattr(shared, "open_base", fetched)
    with pytest.raises(DataError) as caught:
        train_recipe(make_recipe(data=data), tmp_path / "run")
    assert caught.value.key == ("data", *data)
