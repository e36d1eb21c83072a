"""A sweep that was cut off goes on, point by point, to the bits of lone runs: however it was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from durable_disks import do_not_wait

from tlcompile.errors.resume import RunBusyError
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import only_here
from tlcompile.run.saving import Saving
from tlcompile.run.sweep import run_points
from tlcompile.run.train import train_recipe

RECIPE = """\
base: digits_net
freeze: head
data: {dataset: digits, classes: ["5", "6"], per_class: 6}
fine_tune: {batch_size: 4, optimizer: {name: sgd, lr: 0.01, momentum: 0.9}}
run: {workers: 0}
"""
WEIGHTS = Path("bundle/model.safetensors")


class KilledError(BaseException):
    """In the place of SIGKILL: no handler sees it."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    do_not_wait(monkeypatch)
    Path("small.yaml").write_text(RECIPE)
    return tmp_path


def recipes_of(points: list[tuple[str, ...]], *more: str) -> list[Recipe]:
    return [load_recipe("small.yaml", [*point, *more]) for point in points]


def cut_off(
    monkeypatch: pytest.MonkeyPatch, points: list[tuple[str, ...]], saves: int, *more: str
) -> None:
    """Run a sweep that saves after every epoch, and kill it when it has saved so often."""
    left = [saves]
    save = Saving.save

    def killing(self: Saving) -> None:
        save(self)
        left[0] -= 1
        if not left[0]:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Saving, "save", killing)
        patch.setattr(Saving, "is_worth", lambda _self: True)
        with pytest.raises(KilledError):
            run_points(points, recipes_of(points, *more), folder=Path("sweep"))


def assert_as_alone(points: list[tuple[str, ...]], *more: str) -> None:
    """Go on, fused if nothing else is said, and compare each point with a run of its own."""
    recipes = recipes_of(points, *more)
    rows = run_points(points, recipes, folder=Path("sweep"))
    assert [row.error for row in rows] == [""] * len(points)
    for number, row in enumerate(rows):
        alone = Path(f"alone{number}")
        train_recipe(recipes[number], alone, swept=True)
        assert (Path(row.folder) / WEIGHTS).read_bytes() == (alone / WEIGHTS).read_bytes()


@pytest.mark.parametrize("saves", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_member_beside_one_that_is_over_keeps_its_momentum(
    place: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    """The first is over, and its checkpoint has no optimizer; those of the others have."""
    points = [
        ("fine_tune.epochs=1",),
        ("fine_tune.epochs=4",),
        ("fine_tune.epochs=4", "fine_tune.optimizer.momentum=0.5"),
    ]
    cut_off(monkeypatch, points, saves)
    assert_as_alone(points)


def test_a_point_that_was_over_when_it_trained_alone_is_finished_by_the_group(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of its own saves its optimizer behind its last epoch, too."""
    points = [("fine_tune.epochs=1",), ("fine_tune.epochs=2",)]
    cut_off(monkeypatch, points, 1, "sweep.fuse=off")
    cut_off(monkeypatch, points[1:], 1, "sweep.fuse=off")
    assert_as_alone(points)


def test_a_point_that_was_over_when_it_trained_in_a_group_is_finished_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it learns from was seen by the group: alone it takes no step any more."""
    points = [("fine_tune.epochs=1",), ("fine_tune.epochs=2",)]
    cut_off(monkeypatch, points, 2)
    assert_as_alone(points, "sweep.fuse=off")


def test_heads_of_two_layers_go_on_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = "add.mlp={layer: linear, out: 5, activation: tanh, dropout: 0.2, inputs: flatten, feeds: fc}"
    points = [(mlp, f"fine_tune.optimizer.lr={lr}", "fine_tune.epochs=2") for lr in (0.1, 0.01)]
    cut_off(monkeypatch, points, 2)
    assert_as_alone(points)


def test_a_sweep_that_another_process_runs_is_refused(place: Path) -> None:
    """Two of them trained some points twice, and each called those failed that the other one had."""
    points = [("fine_tune.epochs=1",), ("fine_tune.epochs=2",)]
    with only_here(Path("sweep")), pytest.raises(RunBusyError, match="another process trains in"):
        run_points(points, recipes_of(points), folder=Path("sweep"))
    assert not list(Path("sweep").iterdir())
