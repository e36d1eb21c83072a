"""A tiny network learns each task on pictures that are drawn here, by the commands that users type."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyNet, make_recipe
from torch import Tensor, nn

from tlcompile.bundle import load_bundle
from tlcompile.recipe.schema import Recipe
from tlcompile.run.evaluate import as_data, judge
from tlcompile.run.labelled import labelled, own_images
from tlcompile.run.objective import objective_of_bundle
from tlcompile.run.predict import predict_images
from tlcompile.run.train import RunResult, train_recipe

SIDE, COUNT = 16, 48
TUNE: dict[str, Any] = {
    "epochs": 12, "batch_size": 8, "schedule": "constant", "optimizer": {"name": "adam", "lr": 0.02}
}  # fmt: skip


def table(root: Path, columns: str, row: Any) -> str:
    """Draw squares of some colour and size, and write what `row` says of each into a CSV."""
    random = np.random.default_rng(0)
    lines = [columns]
    for number in range(COUNT):
        red, blue, size = random.random() < 0.5, random.random() < 0.5, random.integers(2, 14)
        pixels = random.integers(0, 30, (SIDE, SIDE, 3))
        pixels[:size, :size] = (220 * red + 20, 120, 220 * blue + 20)
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{row(red, blue, size)}")
    path = root / "images.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2)
        self.flatten, self.fc = nn.Flatten(), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.conv2(self.conv1(x).relu()).relu()))


def trained(root: Path, base: nn.Module, **sections: Any) -> RunResult:
    recipe = make_recipe(
        base={"model": "digits_net", "size": SIDE}, freeze="none", fine_tune=TUNE, **sections
    )
    return train_recipe(recipe, root / "run", base=base)


def bundle_of(root: Path, base: nn.Module) -> Any:
    return load_bundle(root / "run", base)


def columns_of(root: Path) -> list[str]:
    return (root / "run" / "metrics.csv").read_text().splitlines()[0].split(",")


def test_several_labels_are_learned(tmp_path: Path) -> None:
    words = table(tmp_path, "image,label", lambda red, blue, _size: ";".join(
        name for name, there in (("red", red), ("blue", blue)) if there))  # fmt: skip
    base = TinyNet(dropout=0.0)
    result = trained(tmp_path, base, task="multilabel", data={"csv": words})
    assert result.best.val is not None
    assert result.best.val.value("f1") > 0.9
    assert result.record["monitor"] == "val/f1"
    assert columns_of(tmp_path)[2:] == [
        "train/loss", "train/f1", "val/loss", "val/f1", "lr", "seconds", "val/map"
    ]  # fmt: skip
    bundle = bundle_of(tmp_path, base)
    assert bundle.classes == ("blue", "red")
    found = judge(bundle, own_images(bundle, print), workers=0)
    assert found.score.value("f1") == result.best.val.value("f1")
    assert {one.name for one in found.classes[""]} == {"blue", "red"}
    Image.new("RGB", (SIDE, SIDE), (240, 20, 20)).save(tmp_path / "red.png")
    chances = predict_images(bundle, [tmp_path / "red.png"], workers=0)[""]
    assert chances.shape == (1, 2)
    assert bool((chances > 0).all() and (chances < 1).all())


def test_numbers_are_learned_and_told_in_their_own_units(tmp_path: Path) -> None:
    # Far from 0 with a small spread: without a scale of its own the head would need ages to get there.
    grams = table(
        tmp_path, "image,grams,metres", lambda _red, _blue, size: f"{5000 + 10 * size},{size / 100}"
    )
    base = Small()
    data = {"csv": grams, "target": ["grams", "metres"]}
    result = trained(tmp_path, base, task="regression", data=data)
    assert result.record["monitor"] == "val/loss"
    assert result.best.val is not None
    assert result.best.val.value("mae") < 10  # the mean of grams and metres; by chance 16
    assert result.best.val.value("r2") > 0.7
    bundle = bundle_of(tmp_path, base)
    samples = own_images(bundle, print)
    found = judge(bundle, samples, workers=0).score
    assert found.value("mae") == pytest.approx(result.best.val.value("mae"), rel=1e-5)
    numbers = predict_images(bundle, [Path(name) for name in samples.ids], workers=0)[""]
    wanted = samples.targets().take([(i, 0) for i in range(len(samples))])
    assert isinstance(wanted, Tensor)
    assert 4950 < float(numbers[:, 0].mean()) < 5200
    assert float((numbers - wanted).abs().mean()) == pytest.approx(
        result.best.val.value("mae"), rel=1e-3
    )


class TwoHeads(nn.Module):
    """One trunk, and a head for each of two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2)
        self.flatten = nn.Flatten()
        self.colour, self.size = nn.Linear(72, 2), nn.Linear(72, 1)

    def forward(self, x: Tensor) -> Any:
        x = self.flatten(self.conv2(self.conv1(x).relu()).relu())
        return {"colour": self.colour(x), "size": self.size(x)}


SEVERAL = {
    "task": {"colour": {"task": "classification"}, "size": {"task": "regression", "weight": 0.5}},
    "outputs": ["colour", "size"],
}


def test_several_outputs_are_learned_together(tmp_path: Path) -> None:
    both = table(
        tmp_path, "image,colour,size", lambda red, _blue, size: f"{'red' if red else 'no'},{size}"
    )
    base = TwoHeads()
    result = trained(tmp_path, base, data={"csv": both}, **SEVERAL)
    assert result.best.val is not None
    parts = result.best.val.parts
    assert parts["colour"].accuracy > 0.9
    assert parts["size"].value("mae") < 2
    assert result.best.val.loss == pytest.approx(parts["colour"].loss + 0.5 * parts["size"].loss)
    assert columns_of(tmp_path)[2:8] == [
        "train/loss", "train/colour/accuracy", "train/size/mae", "val/loss", "val/colour/accuracy",
        "val/size/mae",
    ]  # fmt: skip
    assert (tmp_path / "run" / "confusion-colour.csv").is_file()
    bundle = bundle_of(tmp_path, base)
    found = judge(bundle, own_images(bundle, print), workers=0)
    assert found.score.loss == pytest.approx(result.best.val.loss, rel=1e-5)
    assert found.score.parts["colour"].correct == parts["colour"].correct
    assert set(as_data(found)["outputs"]["colour"]) > {"accuracy", "classes", "confusion"}
    again = labelled(bundle, both, objective_of_bundle(bundle).goals, print)
    assert judge(bundle, again, workers=0).score.count == COUNT
    meanings = predict_images(bundle, [tmp_path / "0.png"], workers=0)
    assert {name: tuple(one.shape) for name, one in meanings.items()} == {
        "colour": (1, 2), "size": (1, 1)
    }  # fmt: skip


class Maps(nn.Module):
    """Fully convolutional, as large as its image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.classifier = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.conv1(x).relu())


def masks(root: Path) -> str:
    """Draw bright squares on dark, each with its mask; its rim counts for nothing."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    for number in range(12):
        pixels, mask = random.integers(0, 60, (SIDE, SIDE, 3)), np.zeros((SIDE, SIDE), np.uint8)
        size = int(random.integers(5, 12))
        pixels[:size, :size] += 150
        mask[:size, :size] = 255
        mask[: size - 1, : size - 1] = 1
        Image.fromarray(pixels.astype(np.uint8)).save(root / "data/images" / f"{number}.png")
        Image.fromarray(mask).save(root / "data/masks" / f"{number}.png")
    (root / "data/classes.txt").write_text("ground\nsquare\n")
    return str(root / "data")


def test_masks_are_learned(tmp_path: Path) -> None:
    base = Maps()
    result = trained(tmp_path, base, task="segmentation", data={"folder": masks(tmp_path)})
    assert result.record["monitor"] == "val/iou"
    assert result.best.val is not None
    assert result.best.val.value("iou") > 0.85
    assert result.best.val.value("accuracy") > 0.9
    bundle = bundle_of(tmp_path, base)
    assert bundle.classes == ("ground", "square")
    found = judge(bundle, own_images(bundle, print), workers=0)
    assert found.score.value("iou") == result.best.val.value("iou")
    assert int(found.confusion[""].sum()) < found.score.count * SIDE * SIDE  # the rim is out
    maps = predict_images(bundle, [Path(own_images(bundle, print).ids[0])], workers=0)[""]
    assert maps.shape == (1, SIDE, SIDE)
    assert maps.dtype == torch.uint8
    assert set(maps.flatten().tolist()) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["auto", "keep"])
def test_a_model_of_the_zoo_learns_masks(tmp_path: Path, head: str) -> None:
    recipe = make_recipe(
        base={"model": "lraspp_mobilenet_v3_large", "size": 64, "weights": "none"}, freeze="none",
        head=head, task="segmentation", data={"folder": masks(tmp_path)},
        fine_tune={**TUNE, "epochs": 3},
    )  # fmt: skip
    if head == "keep":  # 21 classes of its own
        names = [f"c{number}" for number in range(21)]
        recipe = with_classes(recipe, names)
    result = train_recipe(recipe, tmp_path / "run")
    assert result.history[-1].train.loss < result.history[0].train.loss * 0.8
    assert judge(load_bundle(tmp_path / "run"), own_images(load_bundle(tmp_path / "run"), print),
                 workers=0).score.value("iou") > 0  # fmt: skip


def with_classes(recipe: Recipe, names: list[str]) -> Recipe:
    data = recipe.data.model_copy(update={"classes": tuple(names)})
    return recipe.model_copy(update={"data": data})


def test_a_csv_of_predictions_names_labels_and_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlcompile.run import predict

    grams = table(tmp_path, "image,grams", lambda _red, _blue, size: f"{size}")
    base, tune = Small(), {**TUNE, "epochs": 1}
    recipe = make_recipe(
        base={"model": "digits_net", "size": SIDE}, freeze="none", task="regression",
        data={"csv": grams, "target": "grams"}, fine_tune=tune,
    )  # fmt: skip
    train_recipe(recipe, tmp_path / "run", base=base)
    bundle = bundle_of(tmp_path, base)
    monkeypatch.setattr(predict, "load_bundle", lambda _folder: bundle)
    import argparse

    options = argparse.Namespace(
        run=str(tmp_path / "run"), images=[str(tmp_path / "0.png")], json=True, workers=0,
        out=str(tmp_path / "out.csv"),
    )  # fmt: skip
    assert predict.run(options) == 0
    (told,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert set(told["values"]) == {"grams"}
    assert float(row["grams"]) == pytest.approx(told["values"]["grams"], rel=1e-4)
