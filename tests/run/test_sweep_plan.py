"""`plan -m`: what a sweep will share, told before it runs, without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlcompile.run.cli import main

RECIPE = """\
base: {model: digits_net}
data: {dataset: digits, classes: ["5", "6", "7"], split: {val: 0.5}}
fine_tune: {epochs: 2, batch_size: 8}
"""
SWEEP = ("-m", "freeze.upto=stem,block1,head", "fine_tune.optimizer.lr=1e-3,1e-2")


def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    assert main(["plan", str(path), *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_it_says_what_is_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = planned(tmp_path, capsys, *SWEEP)
    assert "points      6" in told
    assert "points 5, 6 train as one" in told
    assert "images once for 6 points, tapped at stem.relu, block1.pool, flatten" in told
    assert "times" in told.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"], "a plan writes nothing"


def test_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(planned(tmp_path, capsys, "--json", *SWEEP))
    assert data["points"] == 6
    assert data["names"][0] == "freeze.upto=stem fine_tune.optimizer.lr=1e-3"
    assert [one["points"] for one in data["boundaries"]] == [[1, 2], [3, 4], [5, 6]]
    assert data["groups"] == [[1, 2], [3, 4], [5, 6]]
    assert len(data["passes"]) == 1
    assert data["seconds"]["shared"] <= data["seconds"]["alone"] <= data["seconds"]["naive"]


def test_freeze_points_that_are_one_under_two_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "-m", "freeze.upto=block2,stage1,stem", "fine_tune.seed=1,2"
    told = planned(tmp_path, capsys, *words)
    assert told.count("same  ") == 1
    assert "freeze.upto=stage1 freezes what freeze.upto=block2 freezes: drop one" in told
    assert len(json.loads(planned(tmp_path, capsys, "--json", *words))["same"]) == 1


def test_rows_beyond_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = planned(tmp_path, capsys, *SWEEP, "run.cache_budget=200kB")
    assert "live        stem.relu: beyond run.cache_budget" in told


def test_images_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = "~data.dataset", "~data.classes", f"data.folder={tmp_path / 'nowhere'}"
    told = planned(tmp_path, capsys, *SWEEP, *places)
    assert "not there to be counted: taken for 1,000 and 250" in told


def test_points_that_cannot_be_compiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    assert main(["plan", str(path), "-m", "freeze.upto=stem,blok1"]) == 2
    assert "has no vertex" in capsys.readouterr().err
