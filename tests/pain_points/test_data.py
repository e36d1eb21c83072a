"""Pain points of data, as they were reported of other tools; the right behaviour here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.data.folder import scan_folder
from tlcompile.data.samples import generator
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.data import UnknownClassError
from tlcompile.run.splits import open_splits
from tlcompile.run.train import train_recipe


def recipe_of(tmp_path: Path, **sections: object):  # type: ignore[no-untyped-def]
    tune = {"epochs": 2, **sections.pop("fine_tune", {})}  # type: ignore[dict-item]
    return make_recipe(
        base={"model": "digits_net", "size": 24},
        freeze="bn2",
        fine_tune=tune,
        run={"cache": str(tmp_path / "cache")},
        **sections,
    )


def test_val_without_a_class_is_judged_by_name(tmp_path: Path) -> None:
    """11, ultralytics PR 26192: val {b, c} scored against {a, b, c} as if b were a."""
    names = ("ants", "bees", "wasps")
    make_pictures(tmp_path / "data" / "train", names)
    make_pictures(tmp_path / "data" / "val", names)
    shutil.rmtree(tmp_path / "data" / "val" / "ants")
    said: list[str] = []
    data = {"folder": str(tmp_path / "data")}
    splits = open_splits(recipe_of(tmp_path, data=data), 3, said.append)
    assert splits.val is not None
    assert splits.val.classes == splits.train.classes == names
    assert [Path(path).parent.name for path in splits.val.ids] == [
        names[label] for label in splits.val.labels
    ]
    assert said == ["classes     val has no image of: ants"]


def test_rows_of_val_in_another_order_have_the_classes_of_train(tmp_path: Path) -> None:
    """11, DeepForest PR 1147: the class list followed the order in which a split's rows stand."""
    root = make_pictures(tmp_path / "data")
    rows = ["bees/0.png,bees,val", "ants/0.png,ants,val", "ants/1.png,ants,train"]
    (root / "t.csv").write_text("\n".join(["image,label,fold", *rows, "bees/1.png,bees,train\n"]))
    data = {"csv": str(root / "t.csv"), "split": {"column": "fold"}}
    splits = open_splits(recipe_of(tmp_path, data=data), 3, print)
    assert splits.val is not None
    assert splits.val.labels == (1, 0)
    assert splits.train.labels == (0, 1)


def test_class_that_train_lacks_is_an_error(tmp_path: Path) -> None:
    """11, ultralytics 13936: an unseen class of val moved the indices of all behind it."""
    make_pictures(tmp_path / "train", ("bees", "wasps"))
    make_pictures(tmp_path / "val", ("ants", "bees"))
    with pytest.raises(UnknownClassError):
        scan_folder(tmp_path)


def test_empty_class_folder_is_an_error_and_shifts_nothing(tmp_path: Path) -> None:
    """11, timm 957: an empty folder counted as a class in one split and not in the other."""
    make_pictures(tmp_path / "train", ("ants", "wasps"))
    (tmp_path / "train" / "bees").mkdir()
    make_pictures(tmp_path / "val", ("wasps",))
    with pytest.raises(TLCompileError, match="bees"):
        scan_folder(tmp_path)


def test_numbers_as_names_come_in_the_order_that_is_said(tmp_path: Path) -> None:
    """11, pytorch 22566: folder "10" stands before "2", and nobody is told."""
    make_pictures(tmp_path / "data", ("10", "2"))
    said: list[str] = []
    data = {"folder": str(tmp_path / "data")}
    assert open_splits(recipe_of(tmp_path, data=data), 3, said.append).classes == ("10", "2")
    assert said == ["classes     sorted as text, not as numbers: 10, 2"]


def test_images_in_two_splits_are_told_once(tmp_path: Path) -> None:
    """Leaked images judge what was learned by heart; found by their bytes, whatever their name."""
    make_pictures(tmp_path / "data" / "train")
    for split, number in (("val", 1), ("test", 2)):
        make_pictures(tmp_path / "data" / split, ("ants",), count=1, side=20)
        copy = tmp_path / "data" / split / "ants" / "other name.png"
        shutil.copy(tmp_path / "data" / "train" / "bees" / f"{number}.png", copy)
    lines: list[str] = []
    phases = [{"name": "head", "epochs": 1}, {"name": "more", "epochs": 1, "freeze": "bn1"}]
    recipe = make_recipe(
        base={"model": "digits_net", "size": 24},
        data={"folder": str(tmp_path / "data")},
        freeze="bn2",
        fine_tune={"phases": phases},
        run={"cache": str(tmp_path / "cache")},
    )
    train_recipe(recipe, tmp_path / "run", base=TinyNet(), say=lines.append)
    # The first pictures of val and test are equal, too.
    told = [line for line in lines if "to the byte" in line]
    assert [line.split(", to")[0] for line in told] == [
        "warning     1 image is in train and in val",
        "warning     1 image is in train and in test",
        "warning     1 image is in val and in test",
    ]
    assert "train/bees/1.png" in told[0]
    assert "other name.png" in told[0]


def loss_without_features(tmp_path: Path, sampling: str) -> float:
    """Train on pictures that say nothing: what is learned is how often a class comes."""
    for name, count in (("many", 27), ("rare", 3)):
        (tmp_path / "grey" / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            value = np.full((24, 24, 3), 100, np.uint8)
            value[0, 0] = number  # files differ
            Image.fromarray(value).save(tmp_path / "grey" / name / f"{number}.png")
    optimizer = {"name": "adam", "lr": 0.05}
    tune = {"sampling": sampling, "epochs": 20, "batch_size": 10, "optimizer": optimizer}
    data = {"folder": str(tmp_path / "grey"), "split": {"val": 0.34}}
    recipe = recipe_of(tmp_path, data=data, fine_tune=tune)
    result = train_recipe(recipe, tmp_path / sampling, base=TinyNet(dropout=0.0))
    return float(np.mean([row.train.loss for row in result.history[-5:]]))


def test_balanced_sampling_brings_rare_classes_as_often_as_common_ones(tmp_path: Path) -> None:
    """The lowest loss is the entropy of the classes as they come: 0.33 of 1 in 10, 0.69 of halves."""
    assert loss_without_features(tmp_path, "all") < 0.45
    assert loss_without_features(tmp_path, "balanced") > 0.6


def test_split_is_the_same_whatever_was_drawn_before(tmp_path: Path) -> None:
    """19, Lightning 18780: data order that hangs on the global random state."""
    folder = str(make_pictures(tmp_path / "data", count=20))
    recipe = recipe_of(tmp_path, data={"folder": folder})
    first = open_splits(recipe, 3, print)
    torch.manual_seed(99)
    np.random.default_rng(99)
    again = open_splits(recipe, 3, print)
    assert first.train.ids == again.train.ids
    assert generator(1).initial_seed() == generator(1).initial_seed()


def test_all_bad_rows_of_a_table_are_told_with_their_place(tmp_path: Path) -> None:
    """20, Lightning 19999: a message that says neither what nor where."""
    (tmp_path / "t.csv").write_text("image,label\nx.png,a\ny.png,\n")
    with pytest.raises(Problems) as caught:
        open_splits(recipe_of(tmp_path, data={"csv": str(tmp_path / "t.csv")}), 3, print)
    places = [str(error.where) for error in caught.value.errors]
    assert places == [f"{tmp_path}/t.csv:2:1", f"{tmp_path}/t.csv:3:1", f"{tmp_path}/t.csv:3:7"]
