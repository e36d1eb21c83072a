"""What a machine reads: --json on success and on errors, as docs/json.md says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_pictures

from tlcompile.recipe.tasks import TASKS
from tlcompile.run.answers import as_data
from tlcompile.run.cli import main
from tlcompile.training.goal import Goal

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
SMALL = "base: digits_net\nfreeze: block1\ndata: {dataset: digits, classes: ['5', '6']}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def documented(title: str) -> set[str]:
    """Return the keys in the first column of a table of docs/json.md."""
    section = re.split(r"\n##? ", DOCUMENT.split(f"\n## {title}\n")[1])[0]
    return set(re.findall(r"^\| `([\w.]+)`", section, re.MULTILINE))


def test_check_and_plan_print_the_documented_keys(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(told(capsys, "check", "small.yaml")) == documented("check")
    two = "fine_tune.phases=[{name: a, epochs: 1}, {name: b, epochs: 1}]"
    plan = told(capsys, "plan", "small.yaml", two)
    lists = ("vertices", "tensors", "rates", "edges", "boundary")
    inner = {
        f"{key}.{name}"
        for key in (*lists, "features", "costs", "parameters")
        for name in (plan[key][0] if isinstance(plan[key], list) else plan[key])
    }
    assert set(plan) | inner == documented("plan")


def test_a_difference_and_a_vertex_of_the_zoo_have_the_documented_keys(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, "plan", "small.yaml", "freeze=stem", "--diff", "small.yaml")
    assert set(found[0]) == documented("plan --diff")
    assert set(told(capsys, "zoo", "digits_net")[0]) == documented("zoo MODEL")


def test_a_sweeps_plan_has_the_documented_keys(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two points train as one, one by itself; both share one pass."""
    swept = ("freeze.upto=block1,block2", "fine_tune.optimizer.lr=1e-3,1e-2", "-m")
    plan = told(capsys, "plan", "small.yaml", *swept)
    inner = {
        f"{key}.{name}"
        for key in ("boundaries", "passes", "seconds")
        for name in (plan[key] if isinstance(plan[key], dict) else plan[key][0])
    }
    assert set(plan) | inner == documented("plan -m")
    assert plan["points"] == len(plan["names"]) == 4
    assert {number for group in plan["groups"] for number in group} | set(
        map(int, plan["alone"])
    ) == {1, 2, 3, 4}


def test_the_lines_of_a_sweep_and_of_its_runs_have_the_documented_keys(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "fine_tune.epochs=2",
        "fine_tune.optimizer.lr=1e-3,1e6",
        "fine_tune.optimizer.name=sgd",
    )
    assert main(["train", "small.yaml", "-m", *words]) == 1
    (folder,) = Path("sweeps").iterdir()
    lines = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    assert set().union(*lines) == documented("points.jsonl")
    assert {line["state"] for line in lines} == {"running", "finished", "failed"}
    events = [
        json.loads(line)
        for path in folder.glob("*/events.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert set().union(*events) == documented("events.jsonl")
    section = DOCUMENT.split("\n## events.jsonl\n")[1]
    kinds = section.split("| `event` | ")[1].split(" |")[0]
    assert {event["event"] for event in events} <= set(re.split(", | or ", kinds))


def test_a_prediction_has_the_documented_keys_of_its_task() -> None:
    """Together with what --out and several outputs add, they are all that is documented."""
    found: dict[str, set[str]] = {}
    for task in TASKS:
        goal = Goal(task=task, classes=("a", "b"), loss=lambda *_: torch.tensor(0.0))
        of_mask = task == "segmentation"
        found[task] = set(as_data(goal, torch.zeros(4, 4) if of_mask else torch.tensor([0.2, 0.8])))
    assert found["classification"] == found["binary"] == {"class", "probabilities"}
    added = {"image", "mask", "outputs"}
    assert set().union(*found.values()) | added == documented("predict")


def test_a_score_and_a_prediction_have_the_documented_keys(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = make_pictures(place / "pictures", count=5, side=8)
    text = f"base: {{model: digits_net, weights: none}}\nfreeze: none\ndata: {pictures}\n"
    Path("tiny.yaml").write_text(f"{text}fine_tune: {{epochs: 1}}\nname: tiny\n")
    assert main(["train", "tiny.yaml"]) == 0
    capsys.readouterr()
    (run,) = map(str, Path("runs").glob("tiny-*"))
    score = told(capsys, "evaluate", run, "pictures", "--workers", "0")
    inner = {f"classes.{key}" for key in score["classes"]["ants"]}
    assert set(score) | inner == documented("evaluate") - {"outputs"}
    assert [sum(row) for row in score["confusion"]] == [5, 5]
    (image, *_) = told(capsys, "predict", run, "pictures", "--workers", "0")
    assert set(image) == {"image", "class", "probabilities"}


def test_an_error_is_data_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("base: digits_net\nfreeze: blokc1\ndata: digits_folder\n")
    assert main(["check", "bad.yaml", "--json", "--classes", "5"]) == 2
    out, err = capsys.readouterr()
    (problem,) = json.loads(out)["problems"]
    assert json.loads(out)["ok"] is False
    assert (problem["file"], problem["line"], problem["column"]) == ("bad.yaml", 2, 9)
    assert problem["slug"] == "unknown-vertex"
    assert "block1" in problem["fix"]
    assert set(problem) == documented("An error")
    assert err.startswith("bad.yaml:2:9: ")  # people read it on stderr as ever


def test_all_problems_of_a_recipe_are_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("base: {model: digits_net, wieghts: none}\nfrezee: x\n")
    problems = told(capsys, "check", "bad.yaml", code=2)["problems"]
    assert [(p["line"], p["slug"]) for p in problems] == [(1, "unknown-key"), (2, "unknown-key")]


def test_a_wrong_option_is_one_of_our_errors(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "small.yaml", "--ful"]) == 2
    said = capsys.readouterr().err
    assert "`tlcompile plan` does not take '--ful' [command-line]" in said
    assert "did you mean '--full'?" in said
    assert main(["plan"]) == 2
    assert "see tlcompile plan --help" in capsys.readouterr().err
    (problem,) = told(capsys, "check", "small.yaml", "--classes", "many", code=2)["problems"]
    assert problem["slug"] == "command-line"
    assert "--classes" in problem["message"]


def test_a_recipe_that_does_not_read_needs_no_torch(place: Path) -> None:
    Path("bad.yaml").write_text("base: digits_net\nfrezee: block1\n")
    code = (
        "import sys; from tlcompile.run.cli import main; print(main(['check', 'bad.yaml']));"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert "did you mean 'freeze'?" in done.stderr
