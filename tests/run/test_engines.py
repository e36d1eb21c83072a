"""Where the points of a sweep run: in processes of their own, by Hydra's launchers; and who asks for them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from small_sweeps import DIGITS, NAMES, POINTS, rows, train, weights

from tlcompile.run import isolated, shared
from tlcompile.run.cli import main
from tlcompile.run.isolated import ABOVE, OUTCOME, PLAN, PointFailedError, result_of
from tlcompile.run.sweep import train_recipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("d.yaml").write_text(DIGITS)
    return tmp_path


# A launcher and sweepers of our own, where Hydra looks for them


@dataclass
class Seen:
    """What the launcher was given, and what it does: `spoil` may raise before a plan runs."""

    launched: list[list[str]] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    sweeps: list[str] = field(default_factory=list)
    returned: list[Any] = field(default_factory=list)
    spoil: Callable[[str, int], None] = lambda _name, _round: None


class HereLauncher(Launcher):
    """Runs plans in this process, as a worker would run them in others."""

    seen: Seen

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.task, self.config = task_function, config

    def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
        seen = type(self).seen
        seen.settings.append(self.settings)
        seen.sweeps.append(self.config.hydra.sweep.dir)
        assert self.task is isolated.work
        plans = [Path(one.removeprefix("++plan='").removesuffix("'")) for (one,) in job_overrides]
        seen.launched.append([plan.name for plan in plans])
        for plan in plans:
            seen.spoil(plan.name, len(seen.launched))
            isolated._train(plan)
        return []


class AskingSweeper(Sweeper):
    """Asks for batches of points one after the other, and keeps what comes back."""

    seen: Seen

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        for batch in (("stem", "block1"), ("block2", "stem")):
            points = [(f"++freeze.upto='{name}'", *arguments[1:]) for name in batch]
            type(self).seen.returned += self.launcher.launch(points, 0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    Plugins.instance()
    home = ModuleType("hydra_plugins.testing")
    monkeypatch.setitem(sys.modules, "hydra_plugins.testing", home)
    seen = Seen()
    kinds = {"launcher": HereLauncher, "sweeper": AskingSweeper}
    for group, kind in kinds.items():
        one = type(kind.__name__, (kind,), {"__module__": home.__name__, "seen": seen})
        setattr(home, kind.__name__, one)
        Plugins.instance().register(one)
        node = {"_target_": f"{home.__name__}.{kind.__name__}", "n_jobs": 1}
        if group == "sweeper":
            node |= {"direction": "minimize"}
        ConfigStore.instance().store(group=f"hydra/{group}", name="testing", node=node)
    return seen


HERE = ("hydra/launcher=testing",)


def test_a_launcher_gets_plans_and_never_the_command_line(seen: Seen) -> None:
    train(POINTS, *HERE, "hydra.launcher.n_jobs=2", "fine_tune.seed=7")
    assert seen.launched == [[f"freeze.upto={name}" for name in NAMES]]
    assert seen.settings == [{"n_jobs": 2}]
    (above,) = Path("sweeps").glob(f"*/{ABOVE}")
    assert seen.sweeps == [str(above.absolute())], "where submitit leaves its files"
    for name in NAMES:
        plan = json.loads((above / f"freeze.upto={name}" / PLAN).read_text())
        assert plan["folder"] == str(above.parent / f"freeze.upto={name}")
        assert plan["options"]["swept"]
        upto = plan["recipe"]["tree"]["entries"]["freeze"][1]["entries"]["upto"][1]
        assert upto["text"] == name
        assert upto["at"][0] == "command line"
    assert [row["state"] for row in rows()] == ["finished"] * 3


def test_an_engine_computes_what_this_process_does(seen: Seen) -> None:
    train(POINTS, *HERE, "output_dir=there")
    train(POINTS, "output_dir=here")
    for name in NAMES:
        assert weights("there", name) == weights("here", name)
    moving = ("seconds", "folder")
    there, here = ([{k: v for k, v in r.items() if k not in moving} for r in rows(above)]
                   for above in ("there", "here"))  # fmt: skip
    assert there == here


def test_the_same_command_launches_what_is_missing(seen: Seen) -> None:
    def fail(name: str, number: int) -> None:
        if name == "freeze.upto=block1" and number == 1:
            (above,) = Path("sweeps").glob(f"*/{ABOVE}")
            (above / name / OUTCOME).write_text('{"error": "there was no disk\\nat all"}')
            raise OSError("the worker says this, too")

    seen.spoil = fail
    train(POINTS, *HERE, code=1)
    assert [row["state"] for row in rows()] == ["finished", "failed", "finished"]
    assert rows()[1]["error"] == "there was no disk"
    assert seen.launched[1] == ["freeze.upto=block2"], "no one else had ended"
    train(POINTS, *HERE)
    assert seen.launched[2:] == [["freeze.upto=block1"]]
    assert [row["state"] for row in rows()] == ["finished"] * 3
    train(POINTS, *HERE)
    assert len(seen.launched) == 3


def test_the_log_has_a_point_as_soon_as_it_ends(seen: Seen) -> None:
    """The launcher only waits; a table that comes with its end alone is lost with the command."""
    told: list[bool] = []

    def wait(name: str, _round: int) -> None:
        if name.endswith("block2"):
            began = time.monotonic()
            while not list(Path("sweeps").glob("*/points.jsonl")) and time.monotonic() - began < 20:
                time.sleep(0.05)
            told.append(bool(list(Path("sweeps").glob("*/points.jsonl"))))

    seen.spoil = wait
    train(POINTS, *HERE)
    assert told == [True]
    assert [row["state"] for row in rows()] == ["finished"] * 3


def test_a_point_whose_worker_is_lost_runs_once_more(seen: Seen) -> None:
    def lose(name: str, number: int) -> None:
        if name == "freeze.upto=block1":
            raise RuntimeError("a worker was killed")

    seen.spoil = lose
    train(POINTS, *HERE, code=1)
    assert seen.launched == [
        [f"freeze.upto={name}" for name in NAMES], ["freeze.upto=block1", "freeze.upto=block2"]
    ]  # fmt: skip
    assert [row["state"] for row in rows()] == ["finished", "failed", "failed"]
    assert rows()[1]["error"].startswith("the point's process was lost, with its worker")


def test_a_launcher_that_cannot_start_is_one_error(
    seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str, number: int) -> None:
        raise FileNotFoundError("no sbatch")

    seen.spoil = fail
    train(POINTS, *HERE, code=1)
    told = capsys.readouterr().err
    assert "Hydra's launcher 'testing' failed [launcher-failed]" in told
    assert "FileNotFoundError: no sbatch" in told
    assert [row["state"] for row in rows()] == ["planned"] * 3


def test_every_point_is_validated_before_the_launcher_hears_of_any(seen: Seen) -> None:
    train("freeze.upto=stem,blok1", *HERE, code=2)
    train("fine_tune.epochs=1,x", *HERE, code=2)
    assert seen.launched == []
    assert not Path("sweeps").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", POINTS, "sweep.engine=nothing"], "sweep.engine"),
        (["-m", POINTS, "hydra/launcher=nothing"], "Hydra's launcher 'nothing' is not installed"),
        (["-m", POINTS, "hydra/sweeper=nothing"], "Hydra's sweeper 'nothing' is not installed"),
        (["-m", POINTS, "hydra.launcher.n_jobs=2"], "hydra.launcher.n_jobs=2 would have no effect"),
        (["freeze.upto=stem", *HERE], "hydra/launcher=testing would have no effect"),
        (
            ["-m", POINTS, *HERE, "sweep.engine=joblib"],
            "sweep.engine is joblib, and hydra/launcher",
        ),
        (["-m", POINTS, *HERE, "hydra.launcher.jobs=2"], "Hydra refuses the command line"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    seen: Seen, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(["train", "d.yaml", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not Path("sweeps").exists()
    assert not Path("runs").exists()


def test_a_missing_engine_is_named_with_its_place_and_its_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConfigStore, "list", lambda _self, _path: ["basic.yaml"])
    for engine, extra in (("joblib", "parallel"), ("submitit", "slurm"), ("ray", "ray")):
        Path("d.yaml").write_text(f"{DIGITS}sweep: {{engine: {engine}}}\n")
        train(POINTS, code=2)
        told = capsys.readouterr().err
        assert told.startswith("d.yaml:4:17: Hydra's launcher ")
        assert f"fix    pip install 'tlcompile[{extra}]'" in told


# A process a point


@pytest.mark.slow
def test_a_point_that_is_killed_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python imports sitecustomize where PYTHONPATH has it: the process of one point dies there."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if sys.orig_argv[-1].endswith('freeze.upto=block1'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if sys.orig_argv[-1].endswith('freeze.upto=stem'):\n"
        "    os._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    train(POINTS, "sweep.isolate=true", "output_dir=apart", code=1)
    assert [row["state"] for row in rows("apart")] == ["failed", "failed", "finished"]
    assert rows("apart")[0]["error"].startswith("the point's process ended with 7")
    assert rows("apart")[1]["error"].startswith("the point's process was killed by SIGKILL")
    assert "2 of 3 points failed [sweep-failed]" in capsys.readouterr().err
    assert main(["train", "d.yaml", "freeze.upto=block2", "output_dir=here"]) == 0
    (here,) = Path("here").glob("*/bundle/model.safetensors")
    assert weights("apart", "block2") == here.read_bytes()


def test_isolated_points_share_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def run_apart(plan: Path, *, log: bool) -> None:
        assert not log, "its lines are the terminal's"
        started.append(plan.name)
        isolated._train(plan)

    monkeypatch.setattr("tlcompile.run.sweep.run_apart", run_apart)
    train(POINTS, "sweep.isolate=true")
    assert started == [f"freeze.upto={name}" for name in NAMES]


def test_what_a_process_says_of_its_end_is_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_apart(plan: Path, *, log: bool) -> None:
        monkeypatch.setattr("tlcompile.run.single.train_on", fail)
        monkeypatch.setattr(isolated, "_save_with_parent", lambda: None)
        assert isolated.main(str(plan)) == 1

    def fail(*_given: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tlcompile.run.sweep.run_apart", run_apart)
    train(POINTS, "sweep.isolate=true", code=1)
    assert [row["error"] for row in rows()] == ["MemoryError"] * 3


def test_how_a_sweep_runs_is_no_part_of_a_recipes_identity() -> None:
    from tiny import make_recipe

    from tlcompile.run.folder import recipe_digest

    other = make_recipe(sweep={"engine": "ray", "isolate": True})
    assert recipe_digest(other) == recipe_digest(make_recipe())


# Sweepers that search

SEARCH = ("freeze.upto=stem,block1", "hydra/sweeper=testing")
UP = "hydra.sweeper.direction=maximize"


def test_a_search_is_one_table_and_its_points_return_numbers(seen: Seen) -> None:
    train(*SEARCH, UP)
    found = rows()
    assert [row["point"] for row in found] == [f"freeze.upto={name}" for name in NAMES]
    values = [one.return_value for one in seen.returned]
    assert [type(value) for value in values] == [float] * 4
    assert [f"{value:.6f}" for value in values[:3]] == [f"{float(r['best']):.6f}" for r in found]
    assert values[3] == values[0], "asked for twice, trained once"


def test_a_search_opens_its_base_once(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    opening = shared.open_base

    def counted(*given: Any, load: bool = True) -> Any:
        opened.append(load)
        return opening(*given, load=load)

    monkeypatch.setattr(shared, "open_base", counted)
    train(*SEARCH, UP)
    assert len(seen.returned) > 1
    assert sum(opened) == 1


def test_a_search_survives_a_point_that_fails(
    seen: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(recipe: Any, folder: Path, **how: Any) -> Any:
        if folder.name == "freeze.upto=block1":
            raise RuntimeError("no luck")
        return train_recipe(recipe, folder, **how)

    monkeypatch.setattr("tlcompile.run.sweep.train_recipe", fail)
    train(*SEARCH, UP, code=1)
    assert [row["state"] for row in rows()] == ["finished", "failed", "finished"]
    with pytest.raises(RuntimeError, match="no luck"):
        seen.returned[1].return_value  # noqa: B018, how a sweeper learns of it
    assert isinstance(seen.returned[2].return_value, float)
    assert "1 of 3 points failed [sweep-failed]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ([], "add hydra.sweeper.direction=maximize"),
        ([UP, "fine_tune.monitor=val/loss"], "add hydra.sweeper.direction=minimize"),
    ],
)
def test_a_search_for_the_worst_is_refused(
    seen: Seen, capsys: pytest.CaptureFixture[str], words: list[str], fix: str
) -> None:
    train(*SEARCH, *words, code=2)
    assert fix in capsys.readouterr().err
    assert not Path("sweeps").exists()


def test_a_sweeper_that_moves_overrides_does_not_change_the_recipe(seen: Seen) -> None:
    """Optuna's puts what it sweeps first; then the whole optimizer would take its rate away."""
    from tlcompile.recipe.load import read_recipe
    from tlcompile.recipe.overrides import split_arguments
    from tlcompile.run.app import Session

    words = ["fine_tune.optimizer={name: sgd, lr: 1}", "fine_tune.optimizer.lr=interval(0.1,0.5)"]
    typed, _, _ = split_arguments(words)
    session = Session(read_recipe(Path("d.yaml")), "d.yaml", typed, print, print)
    moved = ["++fine_tune.optimizer.lr=0.25", "++fine_tune.optimizer='{name: sgd, lr: 1}'"]
    assert session.recipe(moved).fine_tune.optimizer.lr == 0.25
    assert session.point(moved) == ("fine_tune.optimizer.lr=0.25",)


def test_a_lost_point_is_no_result(folder: Path) -> None:
    from tiny import make_recipe

    from tlcompile.errors.engines import PointLostError
    from tlcompile.run.launch import Job

    job = Job(make_recipe(), folder / "point", {})
    with pytest.raises(PointLostError):
        result_of(job)
    plan = isolated.plan_point(job)
    (plan / OUTCOME).write_text('{"error": "why"}')
    with pytest.raises(PointFailedError, match="why"):
        result_of(job)
