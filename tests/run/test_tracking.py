"""Who follows a run: what each tracker has in its files, and that none of them can end a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_recipe

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.resume import TerminatedError
from tlcompile.errors.training import ExtraNotInstalledError
from tlcompile.recipe.schema import Recipe
from tlcompile.run.tracking import following
from tlcompile.run.tracking.following import EVENTS, Following, refuse_missing_trackers
from tlcompile.run.tracking.tracker import Followed, State, values_of
from tlcompile.training.metrics import Score
from tlcompile.training.state import EpochRow, TrainingState

ROW = EpochRow(1, "main", Score(0.5, 8, 10), Score(0.6, 3, 4, {"f1": 0.7}), 0.01, 1.5)


def row(epoch: int) -> EpochRow:
    return EpochRow(epoch, "main", Score(1 / epoch, 8, 10), Score(2 / epoch, 3, 4), 0.01, 1.5)


def recipe(*track: str) -> Recipe:
    return make_recipe(run={"track": list(track)})


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]


class Fake:
    """A tracker that writes down what it is told, and fails where a test says so."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.heard = fails, list[Any]()

    def _hear(self, what: str, told: Any) -> None:
        if what == self.fails:
            raise ConnectionError("no route to the server")
        self.heard.append((what, told))

    def begin(self, run: Followed) -> str | None:
        self._hear("begin", run.known_as)
        return "abc"

    def epoch(self, row: EpochRow) -> None:
        self._hear("epoch", row.epoch)

    def event(self, text: str, epoch: int) -> None:
        self._hear("event", text)

    def end(self, state: State) -> None:
        self._hear("end", state)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    tracker = Fake()
    monkeypatch.setitem(following.TRACKERS, "mlflow", lambda: tracker)
    return tracker


def follow(
    folder: Path, epochs: int = 2, *track: str, state: TrainingState | None = None
) -> list[str]:
    said: list[str] = []
    followed = Following(folder, recipe(*track), said.append)
    state = state or TrainingState()
    with followed.open(state):
        for _ in range(epochs):
            state.steps += 3
            done = row(len(state.history) + 1)
            state.finish_epoch(done, "train/loss", rising=False, min_delta=0.0)
            followed.epoch(done)
    return said


# What everybody is told


def test_numbers_have_the_names_of_metrics_csv() -> None:
    assert values_of(ROW) == {
        "train/loss": 0.5, "train/accuracy": 0.8,
        "val/loss": 0.6, "val/f1": 0.7, "val/accuracy": 0.75,
        "lr": 0.01, "seconds": 1.5,
    }  # fmt: skip


def test_several_outputs_have_names_of_their_own() -> None:
    parts = {"species": Score(0.4, 5, 10), "grams": Score(0.1, None, 10, {"mae": 2.0})}
    values = values_of(EpochRow(1, "main", Score(0.5, None, 10, {}, parts), None, 0.1, 1.0))
    assert values["train/species/accuracy"] == 0.5
    assert values["train/grams/mae"] == 2.0
    assert not any(name.startswith("val/") for name in values)


# events.jsonl


def test_every_run_has_its_events(tmp_path: Path) -> None:
    follow(tmp_path)
    assert [event["event"] for event in events(tmp_path)] == ["began", "finished"]
    assert {"time", "epoch", "step"} <= events(tmp_path)[0].keys()


def test_a_warning_is_an_event_with_its_place(tmp_path: Path) -> None:
    said: list[str] = []
    followed = Following(tmp_path, recipe(), said.append)
    state = TrainingState()
    followed.say("warning     two splits share an image")  # before there is a folder
    with followed.open(state):
        state.step = 6
        followed.say("warning     something else")
        followed.say("features    20 rows")
    kinds = [(e["event"], e["step"], e.get("text")) for e in events(tmp_path)[:3]]
    assert ("warning", 1, "two splits share an image") in kinds
    assert ("warning", 7, "something else") in kinds
    assert len(said) == 3


def test_memory_that_ran_out_is_an_event_each_time_it_does(tmp_path: Path) -> None:
    said: list[str] = []
    followed, state = Following(tmp_path, recipe(), said.append), TrainingState(halvings=1, steps=3)
    with followed.open(state):
        followed.look()
        state.halvings = 2
        followed.look()
        followed.look()
    assert sum("memory ran out" in str(event) for event in events(tmp_path)) == 1
    assert "4 times less" in said[0]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (TerminatedError(kept="epoch 1"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (ZeroDivisionError(), "failed"),
    ],
)
def test_how_a_run_ended_is_told(
    tmp_path: Path, fake: Fake, error: BaseException, end: str
) -> None:
    with (
        pytest.raises(type(error)),
        Following(tmp_path, recipe("mlflow"), print).open(TrainingState()),
    ):
        raise error
    assert events(tmp_path)[-1]["event"] == end
    assert fake.heard[-1] == ("end", end)


def test_a_resumed_run_says_so_and_keeps_its_events(tmp_path: Path) -> None:
    state = TrainingState()
    follow(tmp_path, 1, state=state)
    follow(tmp_path, 1, state=state)
    assert [event["event"] for event in events(tmp_path)] == [
        "began",
        "finished",
        "resumed",
        "finished",
    ]


# Trackers


def test_a_tracker_hears_of_everything_in_order(tmp_path: Path, fake: Fake) -> None:
    follow(tmp_path, 2, "mlflow")
    told = [("epoch", 1), ("epoch", 2), ("event", "finished"), ("end", "finished")]
    assert fake.heard == [("begin", None), *told]


def test_after_a_resume_a_tracker_goes_on_under_its_own_name(tmp_path: Path, fake: Fake) -> None:
    state = TrainingState()
    follow(tmp_path, 1, "mlflow", state=state)
    fake.heard.clear()
    follow(tmp_path, 1, "mlflow", state=state)
    assert ("begin", "abc") in fake.heard


@pytest.mark.parametrize("fails", ["begin", "epoch", "event", "end"])
def test_a_tracker_that_fails_never_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    bad, good = Fake(fails), Fake()
    monkeypatch.setitem(following.TRACKERS, "mlflow", lambda: bad)
    monkeypatch.setitem(following.TRACKERS, "wandb", lambda: good)
    said = follow(tmp_path, 3, "mlflow", "wandb")
    assert [line for line in said if "mlflow failed, the run goes on without it" in line] == said
    assert len(said) == 1
    assert [told for what, told in good.heard if what == "epoch"] == [1, 2, 3]
    assert good.heard[-1] == ("end", "finished")


def test_a_damaged_list_of_names_is_no_reason_to_stop(tmp_path: Path, fake: Fake) -> None:
    (tmp_path / following.NAMES).write_text("{")
    follow(tmp_path, 1, "mlflow")
    assert fake.heard[0] == ("begin", None)


def test_each_tracker_is_opened_and_closed_in_its_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All trials in one run: wandb #1314, lightning-hydra-template #289."""
    made: list[Fake] = []
    monkeypatch.setitem(following.TRACKERS, "mlflow", lambda: made.append(Fake()) or made[-1])
    for point in ("one", "two"):
        follow(tmp_path / point, 1, "mlflow")
    assert [[what for what, _ in tracker.heard] for tracker in made] == [
        ["begin", "epoch", "event", "end"]
    ] * 2


def test_a_missing_package_is_refused_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following.importlib.util, "find_spec", lambda _name: None)  # type: ignore[attr-defined]
    with pytest.raises(ExtraNotInstalledError) as caught:
        refuse_missing_trackers(recipe("wandb"))
    assert caught.value.fix() == "pip install 'tlcompile[wandb]'"
    assert caught.value.where is not None
    refuse_missing_trackers(recipe())


@pytest.mark.parametrize("names", [["comet"], ["wandb", "wandb"]])
def test_names_that_are_wrong_are_refused(names: list[str]) -> None:
    with pytest.raises(TLCompileError):
        recipe(*names)


# The real packages, offline


def test_tensorboard_has_the_numbers_in_the_runs_folder(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    follow(tmp_path, 3, "tensorboard")
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, round(e.value, 4)) for e in board.Scalars("train/loss")] == [
        (1, 1.0), (2, 0.5), (3, 0.3333),
    ]  # fmt: skip
    assert "recipe/text_summary" in board.Tags()["tensors"]


def test_tensorboard_forgets_what_an_aborted_epoch_left(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    follow(tmp_path, 3, "tensorboard")  # then killed before the third was committed
    state = TrainingState(steps=6)
    for epoch in (1, 2):
        state.finish_epoch(row(epoch), "train/loss", rising=False, min_delta=0.0)
    follow(tmp_path, 2, "tensorboard", state=state)
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("val/loss")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_mlflow_has_one_run_though_it_was_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    state, folder = TrainingState(), tmp_path / "digits-1234"
    follow(folder, 2, "mlflow", state=state)
    said = follow(folder, 1, "mlflow", state=state)
    assert not said
    client = mlflow.MlflowClient()
    (experiment,) = [e for e in client.search_experiments() if e.name == "tlcompile"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("digits-1234", "FINISHED")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert run.data.params["fine_tune.seed"] == "42"


@pytest.mark.slow
def test_wandb_has_one_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    state, folder = TrainingState(), tmp_path / "digits-1234"
    assert not follow(folder, 2, "wandb", state=state)
    first = json.loads((folder / following.NAMES).read_text())["wandb"]
    assert not follow(folder, 1, "wandb", state=state)
    assert json.loads((folder / following.NAMES).read_text())["wandb"] == first
    assert list((folder / "wandb").glob(f"offline-run-*-{first}/run-{first}.wandb"))
