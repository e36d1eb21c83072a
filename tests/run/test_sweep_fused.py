"""Points that train as one: short of memory, stopped, or both, they end as each would have alone."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from durable_disks import do_not_wait
from PIL import Image
from tiny import make_pictures

from run.test_sweep import contents
from tlcompile.errors.resume import StoppedError
from tlcompile.recipe.load import load_recipe
from tlcompile.run import sweep_fused
from tlcompile.run.saving import Saving
from tlcompile.run.signals import stoppable
from tlcompile.run.sweep import run_points
from tlcompile.run.train import train_recipe
from tlcompile.sweep.points import Point
from tlcompile.training.fused_block import Block
from tlcompile.training.state import TrainingState

RECIPE = """\
base: {model: digits_net}
data: {folder: pictures, split: {val: 0.5}}
freeze: {upto: block2}
remove: {block3: bypass, fc: drop, flatten: drop}
add:
  drop: {layer: dropout, p: 0.3, inputs: block2}
  conv: {layer: conv2d, out: classes, kernel: 1, inputs: drop}
  pool: {layer: global_pool, inputs: conv}
  flat: {layer: flatten, inputs: pool}
outputs: [flat]
features: {batch_size: 4}
fine_tune: {epochs: 3, batch_size: 4, optimizer: {name: adamw, lr: 0.01}}
run: {workers: 0}
"""
POINTS = tuple((f"fine_tune.optimizer.lr={lr}",) for lr in (0.01, 0.02, 0.03, 0.04))
STEPS, EPOCHS = 2, 3  # 6 images in batches of 4: one of 4, one of 2


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with pictures of 8 x 8 and a recipe for them."""
    monkeypatch.chdir(tmp_path)
    do_not_wait(monkeypatch)
    make_pictures(tmp_path / "pictures", count=6, side=8)
    for path in (tmp_path / "pictures").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    Path("small.yaml").write_text(RECIPE)
    return tmp_path


def swept(
    folder: Path, *overrides: str, points: tuple[tuple[str, ...], ...] = POINTS
) -> list[Point]:
    recipes = [load_recipe("small.yaml", [*point, *overrides]) for point in points]
    return run_points(points, recipes, folder=folder)


def manifest(folder: Path) -> list[dict[str, str]]:
    """Return the table of a sweep, but for seconds and folders."""
    with (folder / "manifest.csv").open(newline="") as file:
        return [{**row, "seconds": "", "folder": ""} for row in csv.DictReader(file)]


def differences(folder: Path, wanted: Path) -> list[str]:
    """Name what differs between two sweeps: rows of the table, and files of points."""
    found = [] if manifest(folder) == manifest(wanted) else ["manifest.csv"]
    for point in POINTS:
        mine, theirs = (contents(one / point[0]) for one in (folder, wanted))
        assert theirs.keys() >= {"bundle/model.safetensors", "metrics.csv", "record.json"}
        names = mine.keys() | theirs.keys()
        found += [f"{point[0]}/{name}" for name in names if mine.get(name) != theirs.get(name)]
    return sorted(found)


# Memory


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let blocks of more than so many members run out of memory; return their sizes."""

    def patched(name: str, most: int, since: int = 0) -> list[int]:
        compute, refused = getattr(Block, name), list[int]()

        def computed(self: Block, *given: Any) -> Any:
            found = compute(self, *given)
            if len(self.members) > most and self.members[0].state.steps >= since:
                refused.append(len(self.members))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return found

        monkeypatch.setattr(Block, name, computed)
        return refused

    return patched


def test_a_convolution_head_is_that_of_a_lone_run(place: Path) -> None:
    rows = swept(place / "fused")
    assert [row.state for row in rows] == ["finished"] * 4
    swept(place / "off", "sweep.fuse=off")
    found = differences(place / "fused", place / "off")
    # Each folder has its recipe, in which the two differ.
    assert {name.partition("/")[2] for name in found} <= {"recipe.yaml", "record.json"}
    train_recipe(load_recipe("small.yaml", [*POINTS[2]]), place / "alone", swept=True)
    assert contents(place / "fused" / POINTS[2][0]) == contents(place / "alone")


@pytest.mark.parametrize("name", ["computed", "judge"])
@pytest.mark.parametrize(("most", "since"), [(2, 0), (1, 3)])
def test_memory_that_runs_out_halves_the_members(
    place: Path, short: Callable[..., list[int]], capsys: pytest.CaptureFixture[str],
    name: str, most: int, since: int,
) -> None:  # fmt: skip
    """In a step and in a validation, at once and later: the bits stay."""
    swept(place / "wanted")
    capsys.readouterr()
    refused = short(name, most, since)
    swept(place / "short")
    assert refused == ([4] if most == 2 else [4, 2, 2])
    assert differences(place / "short", place / "wanted") == []
    told = capsys.readouterr().out
    assert "one by one" not in told
    assert ("memory      ran out: at most 2 points" in told) == (name == "computed")


@pytest.mark.parametrize("name", ["computed", "judge"])
def test_without_memory_for_one_each_goes_on_by_itself(
    place: Path, short: Callable[..., list[int]], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """From the step that they had come to, not from the beginning."""
    swept(place / "wanted")
    capsys.readouterr()
    short(name, 0, since=3)
    swept(place / "short")
    assert differences(place / "short", place / "wanted") == []
    told = capsys.readouterr().out
    assert "not as one, but one by one" in told
    assert told.count("resumed     epoch 2, step ") == 4


def test_memory_is_asked_before_a_group_begins(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that runs out of memory kills the process, and says nothing."""
    groups = []
    train = sweep_fused._train_some

    def noted(jobs: Any, *given: Any) -> None:
        groups.append(len(jobs))
        train(jobs, *given)

    monkeypatch.setattr(sweep_fused, "_train_some", noted)
    swept(place / "wanted")
    numbers = 64 * 2 + 2  # weights and biases that train
    each = numbers * 4 * (sweep_fused.COPIES + 2)  # adamw keeps two numbers a parameter
    monkeypatch.setattr(sweep_fused, "free_memory", lambda: 3 * each * 2)
    swept(place / "two")
    monkeypatch.setattr(sweep_fused, "free_memory", lambda: each)
    swept(place / "none")
    assert groups == [4, 2, 2]
    assert "memory      has room for 3 of 4 points at once" in capsys.readouterr().out
    for name in ("two", "none"):
        assert differences(place / name, place / "wanted") == []


def test_a_point_that_takes_less_at_once_goes_on_by_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was halved in an earlier process; its sums are those of smaller pieces."""
    ends = signal_in(monkeypatch, Block, "take", 3, signal.SIGTERM)
    with pytest.raises(StoppedError), stoppable():
        swept(place / "sweep")
    ends()
    saved = TrainingState.from_data
    lone: list[str] = []
    alone = sweep_fused._Point.release

    def halved(data: Any) -> TrainingState:
        state = saved(data)
        state.halvings = 1
        return state

    def released(self: Any) -> None:
        lone.append(self.name)
        alone(self)

    monkeypatch.setattr(TrainingState, "from_data", halved)
    monkeypatch.setattr(sweep_fused._Point, "release", released)
    rows = swept(place / "sweep")
    assert lone == ["0", "1", "2", "3"]
    assert [row.state for row in rows] == ["finished"] * 4


# Signals


def signal_in(
    patch: pytest.MonkeyPatch, owner: Any, name: str, call: int, number: signal.Signals
) -> Callable[[], None]:
    """Send a signal inside the n-th call of a method; return what ends that."""
    method, calls = getattr(owner, name), [0]

    def called(*values: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return method(*values, **named)

    patch.setattr(owner, name, called)
    return lambda: patch.setattr(owner, name, method)


def moments() -> Iterator[Any]:
    """Yield where a signal comes, and the error that ends the command."""
    moments: list[tuple[Any, str, int]] = [
        (Block, "computed", 2), (Block, "take", 3), (Block, "judge", 2),  # a step, a validation
        (Saving, "save", 2), (Saving, "finish_phase", 2),  # between two members
        (sweep_fused._Point, "open", 2), (sweep_fused._Point, "finish", 3),
    ]  # fmt: skip
    kinds = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]
    for place, (owner, name, call) in enumerate(moments):
        for other, kind in enumerate(kinds):
            marks = pytest.mark.slow if (place + other) % 3 else ()
            yield pytest.param(owner, name, call, *kind, marks=marks, id=f"{name}-{kind[0].name}")


@pytest.mark.parametrize(("owner", "name", "call", "number", "code"), [*moments()])
def test_a_group_that_is_stopped_goes_on_to_the_bit(
    place: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, call: int, number: signal.Signals, code: int,
) -> None:  # fmt: skip
    """Its code says why it ended; what was finished stays, and is not trained again."""
    swept(place / "whole")
    ends = signal_in(monkeypatch, owner, name, call, number)
    with pytest.raises(StoppedError) as caught, stoppable():
        swept(place / "stopped")
    assert caught.value.exit_code == code
    states = [row["state"] for row in manifest(place / "stopped")]
    assert set(states) <= {"finished", "stopped"}
    assert states.count("finished") == (2 if name == "finish" else 0)
    ends()
    done = {row.overrides: row for row in swept(place / "stopped")}
    assert len(done) == 4
    assert differences(place / "stopped", place / "whole") == []
    log = [json.loads(line) for line in (place / "stopped/points.jsonl").read_text().splitlines()]
    assert sum(line["state"] == "finished" for line in log) == 4


def test_a_signal_in_the_step_in_which_a_point_fails_saves_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ("fine_tune.optimizer={name: adamw, lr: 0.01, weight_decay: 1e30}",)
    points = (*POINTS[:2], bad)
    swept(place / "whole", points=points)
    left = signal_in(monkeypatch, Block, "part", 1, signal.SIGTERM)
    with pytest.raises(StoppedError) as caught, stoppable():
        swept(place / "stopped", points=points)
    left()
    assert caught.value.kept == "a checkpoint of each point"
    assert [row["state"] for row in manifest(place / "stopped")] == ["stopped", "stopped", "failed"]
    rows = swept(place / "stopped", points=points)
    assert [row.state for row in rows] == ["finished", "finished", "failed"]
    for point in POINTS[:2]:
        assert contents(place / "stopped" / point[0]) == contents(place / "whole" / point[0])
