"""A sweep is one computation: what its points share changes no result, and is made once."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from reliability.small_runs import counted
from tiny import make_pictures

from tlcompile.bundle import load_bundle
from tlcompile.errors.run import SweepFailedError
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run import opening, sweep
from tlcompile.run import shared as shared_module
from tlcompile.run.shared import Shared
from tlcompile.run.sweep import refuse_failed, run_points
from tlcompile.run.train import train_recipe
from tlcompile.training.step import Step

RECIPE = """\
base: {model: digits_net}
data: {folder: pictures, split: {val: 0.5}}
features: {batch_size: 4}
fine_tune: {epochs: 2, batch_size: 4}
run: {workers: 0}
"""
POINTS = (
    ("freeze.upto=stem", "fine_tune.seed=1"),
    ("freeze.upto=block1", "fine_tune.seed=1"),
    ("freeze.upto=block1", "fine_tune.optimizer.lr=0.01"),
    ("freeze.upto=head", "fine_tune.batch_size=3"),
    ("freeze.upto=head", "fine_tune.optimizer.lr=0.01"),  # these three train as one
    ("freeze.upto=head", "fine_tune.optimizer.lr=0.02", "fine_tune.epochs=3"),
    ("freeze.upto=head", "fine_tune.schedule=constant"),
)
TIMES = ("seconds", "features", "sha256", "at", "run")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with pictures of 8 x 8 and a recipe for them."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "pictures", count=6, side=8)
    for path in (tmp_path / "pictures").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    Path("small.yaml").write_text(RECIPE)
    return tmp_path


def recipe(*overrides: str) -> Recipe:
    return load_recipe("small.yaml", list(overrides))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def content(path: Path) -> Any:
    """Return what a file says, but for times and what a cache spared."""
    if path.name in ("record.json", "manifest.json"):
        return without_times(json.loads(path.read_text())) if path.name == "record.json" else None
    if path.name == "events.jsonl":
        events = [json.loads(line) for line in path.read_text().splitlines()]
        return [one.get("event") for one in events if one.get("event") != "said"]
    if path.name == "metrics.csv":
        return [{**row, "seconds": ""} for row in csv.DictReader(path.read_text().splitlines())]
    return path.read_bytes()


def contents(folder: Path) -> dict[str, Any]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): content(path) for path in files}


def test_every_file_is_that_of_a_lone_run(place: Path) -> None:
    """Base, images, features, compiled model and golden rows are shared; no byte differs."""
    recipes = [recipe(*point) for point in POINTS]
    rows = run_points(POINTS, recipes, folder=place / "sweep")
    assert [row.state for row in rows] == ["finished"] * len(POINTS)
    for number, row in enumerate(rows):
        alone = place / f"alone{number}"
        train_recipe(recipe(*POINTS[number], f"run.cache=cache{number}"), alone, swept=True)
        found, wanted = contents(Path(row.folder)), contents(alone)
        assert found.keys() == wanted.keys() >= {"bundle/model.safetensors", "plan.txt"}
        assert [name for name in wanted if found[name] != wanted[name]] == []


def test_points_share_the_file_of_what_they_freeze(place: Path) -> None:
    """The head's points have one, fused or not; each point stays whole without the others."""
    clipped = ("freeze.upto=head", "fine_tune.clip=1")
    points = (*POINTS[-4:], clipped)  # one alone, three as one, another one alone
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    files = [Path(row.folder) / "bundle" / "frozen.safetensors" for row in rows]
    assert {file.stat().st_ino for file in files} == {files[0].stat().st_ino}
    assert files[0].stat().st_nlink == 2 * len(points), "also last/ of each"
    for row in rows[:-1]:
        shutil.rmtree(row.folder)
    load_bundle(rows[-1].folder)


def test_fused_points_are_those_that_train_one_by_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    fused = sweep.train_fused

    def counted(jobs: Any, *given: Any) -> None:
        groups.append(len(jobs))
        fused(jobs, *given)

    monkeypatch.setattr(sweep, "train_fused", counted)
    points = POINTS[-3:]
    one = run_points(points, [recipe(*point) for point in points], folder=place / "one")
    assert groups == [3]
    off = [recipe(*point, "sweep.fuse=off") for point in points]
    several = run_points(points, off, folder=place / "several")
    assert groups == [3]
    for row, other in zip(one, several, strict=True):
        found, wanted = contents(Path(row.folder)), contents(Path(other.folder))
        assert [name for name in wanted if found.get(name) != wanted[name]] == []


def test_a_fused_point_that_fails_leaves_the_others(place: Path) -> None:
    rates = (
        "{name: sgd, lr: 0.01}",
        "{name: sgd, lr: 1e6, weight_decay: 1e6}",
        "{name: sgd, lr: 0.02}",
    )
    points = [
        ("freeze.upto=head", "fine_tune.epochs=8", f"fine_tune.optimizer={rate}") for rate in rates
    ]
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    assert [row.state for row in rows] == ["finished", "failed", "finished"]
    alone = train_recipe(recipe(*points[2]), place / "alone", swept=True)
    assert rows[2].best == alone.best.value(rows[2].metric)


def test_what_cannot_train_as_one_trains_one_by_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(*_given: Any) -> None:
        raise torch.OutOfMemoryError("no room for all")

    monkeypatch.setattr(sweep, "train_fused", no_room)
    points = POINTS[-3:]
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    assert [row.state for row in rows] == ["finished"] * 3
    assert "not as one, but one by one: no room for all" in capsys.readouterr().out


def test_each_image_goes_through_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three freeze points, two rates, two batch sizes: 12 images, decoded and computed once."""
    work, opened = counted(monkeypatch), list[bool]()
    opening = shared_module.open_base

    def open_base(*given: Any, load: bool = True) -> Any:
        opened.append(load)
        return opening(*given, load=load)

    monkeypatch.setattr(shared_module, "open_base", open_base)
    run_points(POINTS, [recipe(*point) for point in POINTS], folder=place / "sweep")
    assert sorted(work.decoded) == sorted(map(str, Path("pictures").rglob("*.png")))
    assert work.rows == 12
    assert sum(opened) == 1, "with its weights"


def test_other_heads_share_the_pass(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits behind a boundary do not change its rows; what is downstream has a key of its own."""
    work = counted(monkeypatch)
    points = [
        ("freeze.upto=stem",),
        ("freeze.upto=block1", "remove={block3: bypass}"),
        ("freeze.upto=block1", "fine_tune.init=zeros"),
    ]
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    assert [row.error for row in rows] == [""] * 3
    assert work.rows == 12


def test_a_point_that_removes_what_another_freezes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = counted(monkeypatch)
    points = [("freeze.upto=stem", "remove={block1: bypass}"), ("freeze.upto=block1",)]
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    assert [row.error for row in rows] == ["", ""]
    assert work.rows <= 24, "two passes at most"


def test_views_are_shared_and_drawn_by_each(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = counted(monkeypatch)
    views = ("data.augment.train=[horizontal_flip]", "features.views=2")
    points = [("freeze.upto=stem", *views), ("freeze.upto=block1", *views)]
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    assert [row.error for row in rows] == ["", ""]
    assert work.rows == 6 * 2 + 6
    alone = train_recipe(recipe(*points[0], "run.cache=other"), place / "alone", swept=True)
    name = "bundle/model.safetensors"
    assert (Path(rows[0].folder) / name).read_bytes() == (place / "alone" / name).read_bytes()
    assert alone.record["best"]["epoch"] == rows[0].best_epoch


def test_rows_beyond_the_budget_are_computed_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head's rows fit; block1's would drive them out."""
    points = [
        ("freeze.upto=head", "run.cache_budget=20kB"),
        ("freeze.upto=stem", "run.cache_budget=20kB"),
    ]
    lone = [train_recipe(recipe(*point, f"run.cache=own{n}"), place / f"alone{n}", swept=True)
            for n, point in enumerate(points)]  # fmt: skip
    work = counted(monkeypatch)
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweep")
    assert [row.error for row in rows] == ["", ""]
    assert work.rows > 12 * 2, "the stem's rows are computed in every epoch"
    for row, one in zip(rows, lone, strict=True):
        assert row.best == one.best.value(row.metric)


def test_a_failed_point_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a point has touched before it failed is made anew for the others."""
    points = [("freeze.upto=block1", f"fine_tune.seed={seed}") for seed in (1, 2)]
    wanted = train_recipe(recipe(*points[1]), place / "alone", swept=True).record["best"]
    objective = opening.objective_of

    def spoil(one: Recipe, *given: Any) -> Any:
        if one.fine_tune.seed == 1:
            for tensor in shared.base(one, None)[0].module.state_dict().values():
                tensor.zero_()
            raise RuntimeError("burnt")
        return objective(one, *given)

    monkeypatch.setattr(opening, "objective_of", spoil)
    shared = Shared()
    recipes = [recipe(*point) for point in points]
    rows = run_points(points, recipes, folder=place / "sweep", shared=shared)
    assert [row.state for row in rows] == ["failed", "finished"]
    found = json.loads((Path(rows[1].folder) / "record.json").read_text())["best"]
    assert without_times(found) == without_times(wanted)


def manifest(folder: str = "sweeps") -> list[dict[str, str]]:
    (path,) = Path(folder).glob("*/manifest.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_six_results_and_two_reasons(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of eight has a rate that leads to NaN, one runs out of memory; the others never notice."""
    step = Step.__call__

    def small_memory(self: Step, *given: Any, **named: Any) -> Any:
        if len(dict(self.model.trainable())) > 4:
            raise torch.OutOfMemoryError("no room")
        return step(self, *given, **named)

    monkeypatch.setattr(Step, "__call__", small_memory)
    bad = "fine_tune.optimizer={name: sgd, lr: 1e6, weight_decay: 1e6}"
    points = [("freeze.upto=stem",), ("freeze.upto=head", bad, "fine_tune.epochs=8")]
    points += [("freeze.upto=head", f"fine_tune.seed={seed}") for seed in range(6)]
    rows = run_points(points, [recipe(*point) for point in points], folder=place / "sweeps" / "a")
    assert [row.state for row in rows] == ["failed"] * 2 + ["finished"] * 6
    told = manifest()
    assert "[out-of-memory]" in told[0]["error"]
    assert "[not-finite-loss]" in told[1]["error"]
    with pytest.raises(SweepFailedError, match="2 of 8 points failed") as failed:
        refuse_failed(rows)
    assert failed.value.exit_code == 1


def test_the_log_has_every_change(place: Path) -> None:
    rows = run_points(POINTS[:2], [recipe(*p) for p in POINTS[:2]], folder=place / "sweep")
    lines = [
        json.loads(line) for line in (place / "sweep" / "points.jsonl").read_text().splitlines()
    ]
    assert [(one["point"], one["state"]) for one in lines] == [
        (" ".join(row.overrides), state) for row in rows for state in ("running", "finished")
    ]


def test_a_stopped_point_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the running point; the same call runs what is missing, and nothing else."""
    recipes = [recipe(*p) for p in POINTS[:3]]
    train: Callable[..., Any] = sweep.train_recipe
    calls: list[str] = []

    def interrupted(one: Recipe, folder: Path, **how: Any) -> Any:
        calls.append(folder.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(one, folder, **how)

    monkeypatch.setattr(sweep, "train_recipe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_points(POINTS[:3], recipes, folder=place / "sweeps" / "a")
    assert [row["state"] for row in manifest()] == ["finished", "stopped", "planned"]
    rows = run_points(POINTS[:3], recipes, folder=place / "sweeps" / "a")
    assert [row.state for row in rows] == ["finished"] * 3
    assert len(calls) == 4, "the finished one was not trained again"


def test_points_of_different_images_in_one_table_are_told(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished point stays when images come; its row stands beside those of others."""
    recipes = [recipe(*p) for p in POINTS[1:3]]
    run_points(POINTS[1:2], recipes[:1], folder=place / "sweep")
    assert "different images" not in capsys.readouterr().out
    (one,) = list(Path("pictures").rglob("0.png"))[:1]
    one.with_name("new.png").write_bytes(one.read_bytes())
    run_points(POINTS[1:3], recipes, folder=place / "sweep")
    told = capsys.readouterr().out
    assert f"warning     trained on different images: {' '.join(POINTS[1])}" in told
