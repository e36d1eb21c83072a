"""What a run takes from the store, what it says of it, and what it does without."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from reliability.small_runs import (
    CHUNK,
    ROW_BYTES,
    Work,
    counted,
    draw,
    ending,
    net,
    pictures,
    recipe_of,
    split,
    train,
)
from torch import Tensor, nn

from tlcompile.bundle import load_bundle
from tlcompile.data.samples import Samples
from tlcompile.errors.data import MixedSizesError
from tlcompile.errors.precision import NotHardenedError
from tlcompile.features.augment import AugmentedSource
from tlcompile.features.sources import InMemory, InStore, KeptSource, LiveSource
from tlcompile.features.tiers import Tier
from tlcompile.model.compiled import CompiledModel
from tlcompile.run import features as module
from tlcompile.run import shared
from tlcompile.run import train as train_module
from tlcompile.run.cli import main
from tlcompile.run.evaluate import judge
from tlcompile.run.features import SourceBuilder
from tlcompile.run.splits import open_splits
from tlcompile.run.train import RunResult
from tlcompile.store.store import Store

OFF = {"features": {"cache": "off"}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return pictures(tmp_path / "data", 8)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return counted(monkeypatch)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return, after a run, where the rows of each split came from."""
    found: dict[str, Any] = {}
    original = SourceBuilder.sources

    def kept(self: SourceBuilder, splits: Any) -> Any:
        found.update(original(self, splits))
        return found

    monkeypatch.setattr(SourceBuilder, "sources", kept)
    return found


def choose(monkeypatch: pytest.MonkeyPatch, tier: str) -> None:
    chosen = Tier(tier, 1.0, 2.0)
    monkeypatch.setattr(module, "tier_of", lambda *_given: chosen)


# The line, and the record


def test_the_line_and_the_record_of_cold_mixed_and_warm_runs(tmp_path: Path, data: Path) -> None:
    cache = tmp_path / "cache"
    expected = ((16, 0, 16), (18, 16, 2), (18, 18, 0))
    spent = []
    for number, (rows, hits, misses) in enumerate(expected):
        result, (line,) = train(data, tmp_path / f"run{number}", cache)
        told = json.loads((tmp_path / f"run{number}" / "record.json").read_text())["features"]
        assert told == result.record["features"]
        (one,) = [one for one in Store(cache).sets() if one.about.vertex == "relu"]
        assert told["store"] == [{"vertex": "relu", "key": one.about.key}]
        assert (told["rows"], told["hits"], told["misses"]) == (rows, hits, misses)
        assert told["bytes"] == rows * ROW_BYTES
        assert told["precision"] == "exact"
        assert (told["seconds"] > 0) == (misses > 0)
        assert (told["seconds_saved"] > 0) == (hits > 0)
        wording = f"{rows} rows: {hits} hits, {misses} misses"
        assert line.startswith(f"features    {wording}"), line
        assert line.endswith(f" s saved (relu as {one.about.key[:8]}, exact, in {cache})")
        assert ("computed in" in line) == (misses > 0)
        assert one.seconds > 0
        spent.append(one.seconds)
        if number == 0:
            draw(data / "ants" / "more.png", 901)
            draw(data / "bees" / "more.png", 902)
    assert told["seconds_saved"] == pytest.approx(spent[-1], abs=0.002)


def test_a_run_without_a_frozen_part_stores_images(
    tmp_path: Path,
    data: Path,
    work: Work,
    sources: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cold, (line,) = train(data, tmp_path / "a", tmp_path / "cache", freeze="none")
    assert "(pixels as " in line
    assert (cold.record["features"]["rows"], cold.record["features"]["misses"]) == (16, 16)
    assert len(work.decoded) == 16, "not once an epoch"
    work.since()
    train(data, tmp_path / "b", tmp_path / "cache", freeze="none")
    assert work.decoded == []
    assert isinstance(sources["train"], LiveSource)
    monkeypatch.setattr(module, "describe_pixels", lambda _preprocessing: None)
    train(data, tmp_path / "c", tmp_path / "empty", freeze="none")
    assert not (tmp_path / "empty").exists()
    assert ending(tmp_path / "a") == ending(tmp_path / "b") == ending(tmp_path / "c")


def test_a_warm_run_does_not_look_at_images(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(data, tmp_path / "cold", tmp_path / "cache")
    looked: list[str] = []
    original = module._refreshed

    def refreshed(sets: Any) -> Any:
        looked.extend(one.about.vertex for one in sets)
        return original(sets)

    monkeypatch.setattr(module, "_refreshed", refreshed)
    train(data, tmp_path / "warm", tmp_path / "cache")
    assert looked == ["relu"]


# Off, and where it is written


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_without_the_store_nothing_is_written_but_the_run(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tlcompile.features.precision.measure",
        lambda _device: {"exact": 1.0, "fp32-fused": 1.0, "fast": 1.0},
    )
    before = files(tmp_path)
    off = {"features": {"cache": "off", "precision": "auto"}}
    result, lines = train(data, tmp_path / "run", tmp_path / "cache", **off)
    assert {
        path for path in files(tmp_path) - before if tmp_path / "run" not in path.parents
    } == set()
    assert not Path(os.environ["TLCOMPILE_CACHE"]).exists()
    assert lines == []
    assert result.record["features"] == {"precision": "exact"}


def test_the_store_is_where_the_environment_says(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLCOMPILE_CACHE", str(tmp_path / "here"))
    recipe = recipe_of(data, tmp_path)
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"cache": None})})
    train_module.train_recipe(recipe, tmp_path / "run", base=net())
    assert [one.rows for one in Store(tmp_path / "here").sets()] == [16, 16]


def test_points_of_a_sweep_share_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(
        'base: {model: digits_net}\ndata: {dataset: digits, classes: ["5", "6"], per_class: 8}\n'
        "freeze: {upto: block1}\nfine_tune: {epochs: 1, batch_size: 8}\nrun: {cache: store}\n"
    )
    assert main(["train", "small.yaml", "-m", "fine_tune.optimizer.lr=0.1,0.2"]) == 0
    told = re.findall(r"rows: ([\d,]+) hits, ([\d,]+) misses", capsys.readouterr().out)
    assert len(told) == 2
    assert told[0][0] == "0"
    assert told[1] == (told[0][1], "0")


# Where rows are read from


@pytest.mark.parametrize("tier", ["device", "memory", "live"])
def test_every_tier_gives_the_same_bits(
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    sources: dict[str, Any],
    work: Work,
    tier: str,
) -> None:
    train(data, tmp_path / "off", tmp_path / "cache", **OFF)
    work.since()
    choose(monkeypatch, tier)
    train(data, tmp_path / "run", tmp_path / "cache")
    assert ending(tmp_path / "run") == ending(tmp_path / "off")
    assert work.since() == (16, 32 if tier == "live" else 16), "2 epochs"
    kept = sources["train"]
    if tier == "live":
        assert isinstance(kept, LiveSource)
    else:
        assert isinstance(kept, KeptSource)
        assert isinstance(kept.rows, InMemory if tier == "device" else InStore)


def test_live_rows_have_the_precision_that_the_record_says(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = {"features": {"precision": "fast"}}
    train(data, tmp_path / "kept", tmp_path / "cache", **fast)
    choose(monkeypatch, "live")
    told, _ = train(data, tmp_path / "live", tmp_path / "cache", **fast)
    exact, _ = train(data, tmp_path / "exact", tmp_path / "cache")
    assert told.record["precision"] == "fast"
    assert told.history[0].train.loss != exact.history[0].train.loss
    assert ending(tmp_path / "live") == ending(tmp_path / "kept")


def test_a_precision_that_cannot_be_had_is_no_fault_of_the_disk(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlcompile.features.hard.LIMITS", {"fast": -1.0})
    lines: list[str] = []
    recipe = recipe_of(data, tmp_path / "cache", features={"precision": "fast"})
    with pytest.raises(NotHardenedError):
        train_module.train_recipe(recipe, tmp_path / "run", base=net(), say=lines.append)
    assert lines == []


class Halves(nn.Module):
    """A boundary that is not float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).to(self.dtype)
        return self.fc(self.conv2(x.float()).mean((2, 3)))


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (torch.float16, "fast"),
        (torch.float64, "exact"),
        (torch.int64, "exact"),  # in bf16, some would be other numbers
        (torch.bool, "fast"),
    ],
)
def test_a_boundary_of_another_dtype(
    tmp_path: Path, data: Path, dtype: torch.dtype, precision: str
) -> None:
    base = Halves(dtype)
    for name, cache in (("kept", "auto"), ("live", "off")):
        features = {"cache": cache, "precision": precision}
        tune = {"epochs": 1}
        recipe = recipe_of(data, tmp_path / "cache", freeze="to", features=features, fine_tune=tune)
        model = train_module.train_recipe(recipe, tmp_path / name, base=base).model
        assert model.boundary[0].dtype == str(dtype).removeprefix("torch.")
    assert ending(tmp_path / "kept") == ending(tmp_path / "live")


def test_images_that_are_not_cropped_are_not_stored(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a set have one shape."""
    original = shared.open_base

    def uncropped(*given: Any) -> Any:
        opened = original(*given)
        whole = dataclasses.replace(opened.preprocessing, resize=None, crop=None)
        return dataclasses.replace(opened, preprocessing=whole)

    monkeypatch.setattr(shared, "open_base", uncropped)
    _, (line,) = train(data, tmp_path / "run", tmp_path / "cache")
    assert "computed in every epoch: images are not cropped to one size" in line
    train(data, tmp_path / "off", tmp_path / "cache", **OFF)
    assert ending(tmp_path / "run") == ending(tmp_path / "off")
    assert not (tmp_path / "cache").exists()
    Image.new("RGB", (20, 30)).save(data / "ants" / "odd.png")
    with pytest.raises(MixedSizesError):
        train(data, tmp_path / "mixed", tmp_path / "cache")


# Splits


def test_one_image_a_class_and_none_to_judge_by(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 1)
    result, (line,) = train(data, tmp_path / "run", tmp_path / "cache")
    assert "2 rows: 0 hits, 2 misses" in line
    assert result.record["best"]["val"] is None
    train(data, tmp_path / "off", tmp_path / "cache", **OFF)
    assert ending(tmp_path / "run") == ending(tmp_path / "off")


def test_a_test_folder_is_computed_and_what_it_shares_is_not(tmp_path: Path, work: Work) -> None:
    data = split(tmp_path / "data")
    result, (line,) = train(data, tmp_path / "run", tmp_path / "cache")
    assert work.since() == (20, 20)
    assert "22 rows: 2 hits, 20 misses" in line
    assert result.record["test"]["n"] == 6
    again, _ = train(data, tmp_path / "again", tmp_path / "cache", **OFF)
    assert again.record["test"] == result.record["test"]


def test_a_binary_task(tmp_path: Path, data: Path) -> None:
    for name, sections in (("run", {}), ("off", OFF)):
        result, _ = train(data, tmp_path / name, tmp_path / "cache", task="binary", **sections)
        assert result.record["task"] == "binary"
    assert ending(tmp_path / "run") == ending(tmp_path / "off")


# Augmented features


def test_augmented_features_are_the_same_kept_and_live_and_only_while_training(
    tmp_path: Path, data: Path, sources: dict[str, Any], work: Work
) -> None:
    augment = {"augment": {"noise": 0.3, "dropout": 0.2}}
    train(data, tmp_path / "plain", tmp_path / "cache")
    work.since()
    train(data, tmp_path / "kept", tmp_path / "cache", features=augment)
    assert work.since() == (0, 0), "what is stored is not changed"
    assert isinstance(sources["train"], AugmentedSource)
    assert isinstance(sources["val"], KeptSource)
    result, _ = train(
        data, tmp_path / "live", tmp_path / "cache", features={**augment, "cache": "off"}
    )
    assert ending(tmp_path / "kept") == ending(tmp_path / "live")
    assert ending(tmp_path / "kept")["bundle"] != ending(tmp_path / "plain")["bundle"]
    bundle = load_bundle(tmp_path / "live" / "bundle", base=net())
    score = judge(bundle, judged_by(data, result), workers=0).score
    assert score.loss == pytest.approx(result.best.val.loss if result.best.val else 0.0, abs=1e-6)


def judged_by(data: Path, result: RunResult) -> Samples:
    """Return the validation images of a run."""
    splits = open_splits(recipe_of(data, data), 3, lambda _line: None)
    assert splits.val is not None
    assert len(splits.val) == sum(result.record["images"]["val"].values())
    return splits.val


def test_chunks_have_one_size(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows depend on it in their last bits."""
    sizes = set()
    original = CompiledModel.prefix

    def prefix(self: CompiledModel, *inputs: Tensor) -> Any:
        sizes.update(map(len, inputs))
        return original(self, *inputs)

    monkeypatch.setattr(CompiledModel, "prefix", prefix)
    for sections in ({}, OFF):
        train(data, tmp_path / "run", tmp_path / "cache", **sections)
    assert sizes == {CHUNK, 2, 1}, "two for the proof that images are not mixed, one golden sample"


def test_a_name_that_is_no_text_does_not_lose_a_run(tmp_path: Path, data: Path) -> None:
    draw(data / "ants" / os.fsdecode(b"caf\xe9.png"), 99)
    result, _ = train(data, tmp_path / "run", tmp_path / "cache")
    assert result.record["features"]["rows"] == 17
