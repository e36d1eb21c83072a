"""docs/training.md says only what is true: its recipes and commands run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from page_blocks import block_of
from safetensors.torch import load_file

from tlcompile.bundle import load_bundle
from tlcompile.recipe.optimizers import OneOptimizer
from tlcompile.recipe.schedules import OneSchedule
from tlcompile.recipe.tasks import TASKS, default_monitor, metrics_of
from tlcompile.run.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"<!-- trains: (\w+) -->", PAGE)


def block(mark: str) -> str:
    return block_of(PAGE, mark)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLCOMPILE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")


def test_there_are_recipes_on_the_page() -> None:
    assert RECIPES == ["phases", "rates", "regularisation"]


@pytest.mark.parametrize("mark", RECIPES)
def test_a_recipe_of_the_page_trains(mark: str) -> None:
    digits = Path("recipes/digits.yaml").read_text()
    data = re.search(r"^data:\n(?:  .*\n)+", digits, re.MULTILINE)
    assert data
    Path("r.yaml").write_text(f"base: {{model: digits_net}}\n{data[0]}{block(f'trains: {mark}')}")
    assert main(["train", "r.yaml"]) == 0


@pytest.mark.parametrize("line", block("commands").splitlines())
def test_a_command_of_the_page_works(line: str) -> None:
    assert main(shlex.split(line)[1:]) == 0


def test_the_program_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("python"), "training.md", "exec"), {})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["1", "main"],
        ["2", "main"],
    ]


def test_the_weights_are_read_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train", "recipes/digits.yaml", "fine_tune.epochs=1"]) == 0
    (run,) = Path("runs").iterdir()
    model = load_bundle(run).model
    monkeypatch.chdir(run)
    found: dict[str, Any] = {}
    exec(compile(block("weights"), "training.md", "exec"), found)
    model.load_state_dict(found["state"], strict=True)
    assert load_file("last/frozen.safetensors").keys() == model.frozen.tensors


def words(union: object) -> set[str]:
    return {get_args(kind.model_fields["name"].annotation)[0] for kind in get_args(union)}


def test_every_optimizer_and_schedule_is_on_the_page() -> None:
    for start, union in (
        ("`optimizer: NAME`: ", OneOptimizer),
        ("`schedule: NAME`: ", OneSchedule),
    ):
        told = PAGE.split(start)[1].split(" |")[0]
        assert set(told.split(", ")) == words(union)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_metrics_on_the_page(task: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{task}`"))
    told = row.split(" | ")[2].rstrip(" |").split(", ")
    assert set(told) == set(metrics_of(task))
    assert told[0] == default_monitor(task)
