"""Points that train as one: short of memory, stopped, or both, they end as each would have alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
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
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures of 8 x 8, a recipe, and the sweep that nobody touched."""
    ground = tmp_path_factory.mktemp("ground")
    make_pictures(ground / "pictures", count=6, side=8)
    for path in (ground / "pictures").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    (ground / "small.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ground)
        rows = swept(ground / "whole")
    assert [row.state for row in rows] == ["finished"] * 4
    return ground


@pytest.fixture(autouse=True)
def whole(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand there; return the sweep that nobody touched."""
    monkeypatch.chdir(ground)
    do_not_wait(monkeypatch)
    return ground / "whole"


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
        names = (mine.keys() | theirs.keys()) - {"events.jsonl"}  # says that it was resumed
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


def test_a_convolution_head_is_that_of_a_lone_run(tmp_path: Path, whole: Path) -> None:
    swept(tmp_path / "off", "sweep.fuse=off")
    found = differences(tmp_path / "off", whole)
    # Each folder has its recipe, in which the two differ.
    assert {name.partition("/")[2] for name in found} <= {"recipe.yaml", "record.json"}
    train_recipe(load_recipe("small.yaml", [*POINTS[2]]), tmp_path / "alone", swept=True)
    assert contents(whole / POINTS[2][0]) == contents(tmp_path / "alone")


@pytest.mark.parametrize(
    ("name", "most", "since"),
    [
        ("computed", 2, 0),
        ("judge", 1, 3),
        pytest.param("computed", 1, 3, marks=pytest.mark.slow),
        pytest.param("judge", 2, 0, marks=pytest.mark.slow),
    ],
)
def test_memory_that_runs_out_halves_the_members(
    tmp_path: Path, whole: Path, short: Callable[..., list[int]], capsys: pytest.CaptureFixture[str],
    name: str, most: int, since: int,
) -> None:  # fmt: skip
    """In a step and in a validation, at once and later: the bits stay."""
    refused = short(name, most, since)
    swept(tmp_path / "short")
    assert refused == ([4] if most == 2 else [4, 2, 2])
    assert differences(tmp_path / "short", whole) == []
    told = capsys.readouterr().out
    assert "one by one" not in told
    assert ("memory      ran out: at most 2 points" in told) == (name == "computed")


@pytest.mark.parametrize("name", [pytest.param("computed", marks=pytest.mark.slow), "judge"])
def test_without_memory_for_one_each_goes_on_by_itself(
    tmp_path: Path,
    whole: Path,
    short: Callable[..., list[int]],
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """From the step that they had come to, not from the beginning."""
    short(name, 0, since=3)
    swept(tmp_path / "short")
    assert differences(tmp_path / "short", whole) == []
    told = capsys.readouterr().out
    assert "not as one, but one by one" in told
    assert told.count("resumed     epoch 2, step ") == 4


def test_memory_is_asked_before_a_group_begins(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that runs out of memory kills the process, and says nothing."""
    groups = []
    train = sweep_fused._train_some

    def noted(jobs: Any, *given: Any) -> None:
        groups.append(len(jobs))
        train(jobs, *given)

    monkeypatch.setattr(sweep_fused, "_train_some", noted)
    numbers = 64 * 2 + 2  # weights and biases that train
    each = numbers * 4 * (sweep_fused.COPIES + 2)  # adamw keeps two numbers a parameter
    monkeypatch.setattr(sweep_fused, "free_memory", lambda: 3 * each * 2)
    swept(tmp_path / "two")
    monkeypatch.setattr(sweep_fused, "free_memory", lambda: each)
    swept(tmp_path / "none")
    assert groups == [2, 2]
    assert "memory      has room for 3 of 4 points at once" in capsys.readouterr().out
    for name in ("two", "none"):
        assert differences(tmp_path / name, whole) == []


def test_a_point_that_takes_less_at_once_goes_on_by_itself(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was halved in an earlier process; its sums are those of smaller pieces."""
    ends = signal_in(monkeypatch, Block, "take", 3, signal.SIGTERM)
    with pytest.raises(StoppedError), stoppable():
        swept(tmp_path / "sweep")
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
    rows = swept(tmp_path / "sweep")
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
            often = (place + other) % 3 == 0 and name in ("take", "judge", "save", "finish")
            marks = () if often else pytest.mark.slow
            yield pytest.param(owner, name, call, *kind, marks=marks, id=f"{name}-{kind[0].name}")


@pytest.mark.parametrize(("owner", "name", "call", "number", "code"), [*moments()])
def test_a_group_that_is_stopped_goes_on_to_the_bit(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch,
    owner: Any, name: str, call: int, number: signal.Signals, code: int,
) -> None:  # fmt: skip
    """Its code says why it ended; what was finished stays, and is not trained again."""
    if owner is not Block:
        monkeypatch.setattr(Saving, "is_due", lambda self: True)
    ends = signal_in(monkeypatch, owner, name, call, number)
    with pytest.raises(StoppedError) as caught, stoppable():
        swept(tmp_path / "stopped")
    assert caught.value.exit_code == code
    states = [row["state"] for row in manifest(tmp_path / "stopped")]
    assert set(states) <= {"finished", "stopped"}
    assert states.count("finished") == {"finish": 2, "finish_phase": 1}.get(name, 0)
    ends()
    done = {row.overrides: row for row in swept(tmp_path / "stopped")}
    assert len(done) == 4
    assert differences(tmp_path / "stopped", whole) == []
    log = [
        json.loads(line) for line in (tmp_path / "stopped/points.jsonl").read_text().splitlines()
    ]
    assert sum(line["state"] == "finished" for line in log) == 4


def test_a_signal_in_the_step_in_which_a_point_fails_saves_the_others(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = ("fine_tune.optimizer={name: adamw, lr: 1e6, weight_decay: 1e6}", "fine_tune.epochs=8")
    points = (*POINTS[:2], bad)
    left = signal_in(monkeypatch, Block, "part", 1, signal.SIGTERM)
    with pytest.raises(StoppedError) as caught, stoppable():
        swept(tmp_path / "stopped", points=points)
    left()
    assert caught.value.kept == "a checkpoint of each point"
    states = [row["state"] for row in manifest(tmp_path / "stopped")]
    assert states == ["stopped", "stopped", "failed"]
    rows = swept(tmp_path / "stopped", points=points)
    assert [row.state for row in rows] == ["finished", "finished", "failed"]
    assert capsys.readouterr().out.count("resumed     epoch 3, step 2") == 2
    for point in POINTS[:2]:
        mine, theirs = (contents(one / point[0]) for one in (tmp_path / "stopped", whole))
        assert {**mine, "events.jsonl": []} == {**theirs, "events.jsonl": []}


# Kills


@pytest.mark.slow  # by default test_resumed_sweep.py does it without processes
def test_a_group_that_is_killed_goes_on_to_the_bit(ground: Path, whole: Path) -> None:
    """kill -9 in a step, between the checkpoints of two members, and when some are finished."""
    done = subprocess.run(
        [sys.executable, "-m", "run.killed_group", str(ground)],
        capture_output=True, text=True, timeout=600, check=False, cwd=TESTS,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout.splitlines()[-1])
    assert [one["finished"] for one in killed.values()] == [0, 0, 2]
    for name, one in killed.items():
        assert one["again"] == [], "no point is trained again after it finished"
        assert differences(ground / name, whole) == []
