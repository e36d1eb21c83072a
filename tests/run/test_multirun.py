"""Sweeps and Hydra: points are proved before the first starts, and Hydra leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sweeps import DIGITS
from small_sweeps import rows as manifest
from tiny import make_pictures
from torch import nn

from tlcompile.errors.recipe import RecipeError
from tlcompile.recipe.load import read_recipe
from tlcompile.recipe.overrides import split_arguments
from tlcompile.recipe.schema import Recipe
from tlcompile.run import opening
from tlcompile.run import train as train_module
from tlcompile.run.app import Session, launch
from tlcompile.run.cli import main

SECTIONS = ("base", "freeze", "data", "fine_tune", "hydra", "conf", "run")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stand in a folder whose subfolders have the names of sections, with YAML files in them."""
    monkeypatch.chdir(tmp_path)
    for name in SECTIONS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "none.yaml").write_text("model: wrong\n")
    Path("small.yaml").write_text(DIGITS)
    return "small.yaml"


def tl(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    found = main(list(words))
    told = capsys.readouterr()
    assert found == code, told.err + told.out
    assert "Traceback" not in told.err
    assert "hydra" not in told.out.lower()
    return told.out if code == 0 else told.err


def test_a_sweep(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", recipe, "-m", "freeze.upto=stem,block1,block2"]
    told = tl(capsys, *words)
    rows = manifest()
    assert [row["point"] for row in rows] == [
        "freeze.upto=stem", "freeze.upto=block1", "freeze.upto=block2",
    ]  # fmt: skip
    assert [row["state"] for row in rows] == ["finished"] * 3
    assert int(rows[0]["trainable"]) > int(rows[1]["trainable"]) > int(rows[2]["trainable"])
    for row in rows:
        low, best, high = (float(row[key]) for key in ("low95", "best", "high95"))
        assert 0 <= low <= best <= high <= 1
        assert (Path(row["folder"]) / "bundle" / "model.safetensors").is_file()
        assert row["error"] == ""
    lines = told.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("point  "))
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == [r["point"] for r in rows]
    assert {p.name for p in tmp_path.iterdir()} == {recipe, "sweeps", *SECTIONS}

    stamps = {
        row["folder"]: (Path(row["folder"]) / "record.json").stat().st_mtime_ns for row in rows
    }
    again = tl(capsys, *words)
    assert again.count("finished before: ") == 3
    for folder, stamp in stamps.items():
        assert (Path(folder) / "record.json").stat().st_mtime_ns == stamp
    assert manifest() == rows


def test_a_wrong_vertex_starts_nothing(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = tl(capsys, "train", recipe, "-m", "freeze.upto=stem,blok1,blok2", code=2)
    assert told.count("base model 'digits_net' has no vertex") == 2
    assert told.startswith("command line:1:21: ")
    assert "command line:1:27: " in told
    assert not Path("sweeps").exists()


def test_a_wrong_value_starts_nothing(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = tl(capsys, "train", recipe, "-m", "fine_tune.epochs=1,x", code=2)
    assert "command line:1:23: fine_tune.epochs cannot be x" in told
    assert not Path("sweeps").exists()


@pytest.mark.parametrize("values", ["stem,stem", "block1,block1,stem"])
def test_equal_points_are_refused(
    recipe: str, capsys: pytest.CaptureFixture[str], values: str
) -> None:
    told = tl(capsys, "train", recipe, "-m", f"freeze.upto={values}", code=2)
    assert "2 points of the sweep are the same recipe [duplicate-point]" in told
    told = tl(capsys, "train", recipe, "-m", "fine_tune.optimizer.lr=1e-3,0.001", code=2)
    assert "[duplicate-point]" in told


def test_points_that_differ_in_how_they_are_run_alone_are_told_why_they_are_one(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", recipe, "-m", "run.precision=fp32,bf16", "freeze.upto=stem,block1"]
    told = " ".join(tl(capsys, *words, code=2).split())
    assert "because run.precision says how a recipe is run" in told
    assert "fix leave run.precision out" in told


def test_a_point_that_fails_is_a_row(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", recipe, "-m", "freeze.upto=stem,block1,block2"]
    original = opening.objective_of
    calls = 0

    def fail_once(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise RuntimeError("=the machine\nburns")
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "objective_of", fail_once)
    told = tl(capsys, *words, code=1)
    assert "1 of 3 points failed [sweep-failed]" in told
    rows = manifest()
    assert [row["state"] for row in rows] == ["finished", "failed", "finished"]
    assert rows[1]["error"] == "'=the machine", "no formula for a spreadsheet"
    tl(capsys, *words)
    assert [row["state"] for row in manifest()] == ["finished"] * 3


def test_a_product_and_a_range(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    tl(capsys, "train", "-m", recipe, "freeze.upto=stem,block1", "fine_tune.epochs=range(1,3)")
    assert [row["point"] for row in manifest()] == [
        "freeze.upto=stem fine_tune.epochs=1", "freeze.upto=stem fine_tune.epochs=2",
        "freeze.upto=block1 fine_tune.epochs=1", "freeze.upto=block1 fine_tune.epochs=2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["freeze.upto=stem,block1"], "several values are a sweep"),
        (["-m"], "no override has several values"),
        (["-m", "fine_tune.optimizer.lr=interval(0,1)"], "needs a sweeper that chooses points"),
        (["hydra.nothing=1"], "Hydra refuses the command line"),
        (["-m", "freeze.upto=stem,block1", "hydra.sweeper.nothing=1"], "Hydra refuses"),
    ],
)
def test_what_cannot_be_launched(
    recipe: str, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    told = tl(capsys, "train", recipe, *words, code=2)
    assert says in " ".join(told.split())
    assert "[unexpected]" not in told


def test_hydra_in_a_recipe_is_refused(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(recipe).write_text(DIGITS + "hydra: {run: {dir: /tmp/elsewhere}}\n")
    assert "small.yaml:4:1: " in tl(capsys, "train", recipe, code=2)


def test_a_single_run_is_not_confused_by_folders(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tl(capsys, "train", recipe, "freeze=block1", "data.per_class=4")
    assert {p.name for p in tmp_path.iterdir()} == {recipe, "runs", *SECTIONS}


def test_names_that_are_numbers_are_three_points(tmp_path: Path) -> None:
    """3.0, 3.1 and 3.10 are three vertices; as numbers they would be two."""
    path = tmp_path / "numbers.yaml"
    data = make_pictures(tmp_path / "data", side=12)
    path.write_text(
        f"base: {{model: digits_net, size: 8}}\ndata: {data}\nfine_tune: {{epochs: 1}}\n"
    )
    inner = nn.Sequential(*[nn.Conv2d(4, 4, 1) for _ in range(11)])
    base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), inner,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))  # fmt: skip
    trained: list[tuple[tuple[str, ...], int]] = []

    def run_points(
        points: list[tuple[str, ...]], recipes: list[Recipe], **_how: object
    ) -> list[object]:
        for point, recipe in zip(points, recipes, strict=True):
            result = train_module.train_recipe(recipe, tmp_path / str(len(trained)), base=base)
            trained.append((point, sum(1 for _ in result.model.trainable())))
        return []

    overrides, for_hydra, _flags = split_arguments(["freeze.upto=3.0,3.1,3.10"])
    session = Session(read_recipe(path), str(path), overrides, lambda _r: None, run_points)
    launch(session, overrides, for_hydra, multirun=True)
    assert trained == [
        (("freeze.upto=3.0",), 22), (("freeze.upto=3.1",), 20), (("freeze.upto=3.10",), 2),
    ]  # fmt: skip


def test_overrides_keep_their_places(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = tl(capsys, "train", recipe, "--again", "freeze.upto=blok1", code=2)
    assert told.startswith("command line:1:")
    assert issubclass(RecipeError, Exception)
