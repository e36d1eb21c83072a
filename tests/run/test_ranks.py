"""Runs on several devices: how they are launched, how they end, and that they end as one."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny import make_recipe
from torch import Tensor

from run.rank_runs import RECIPE, alive, difference, end, folder, same, start, until, weights
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.data import UnreadableImagesError
from tlcompile.errors.ranks import (
    DevicesFromPythonError,
    NotEnoughDevicesError,
    OtherRankCountError,
    PeerLostError,
    RankCrashedError,
    RankLostError,
)
from tlcompile.errors.run import NoDeviceError
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.sent import from_plain, to_plain
from tlcompile.run import api, launch
from tlcompile.run.api import train
from tlcompile.run.launch import Job, num_devices, refuse_other_count
from tlcompile.run.rank_errors import write_error
from tlcompile.run.single import run_single
from tlcompile.run.train import train_recipe


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Return what two devices learn if nothing happens to them."""
    place = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("small.yaml").write_text(RECIPE)
        end(start("small.yaml", "run.devices=2"))
        return weights(folder())


# What crosses from the launcher to the ranks, and back


def test_a_recipe_keeps_its_places_on_the_way_to_a_rank(small: Path) -> None:
    recipe = load_recipe("small.yaml", ["fine_tune.seed=7"])
    sent = from_plain(json.loads(json.dumps(to_plain(recipe))))
    assert sent == recipe
    for key in (
        ("fine_tune", "phases", 1, "epochs"),
        ("fine_tune", "seed"),
        ("data", "classes", 2),
    ):
        assert sent.where(key) == recipe.where(key) is not None


def test_a_recipe_written_in_python_can_be_sent() -> None:
    recipe = make_recipe(fine_tune={"epochs": 3, "optimizer": {"name": "sgd"}})
    assert from_plain(to_plain(recipe.model_copy())) == recipe


def test_a_job_is_what_every_rank_reads() -> None:
    job = Job(make_recipe(), Path("runs/a"), {"inexact": True})
    assert Job.from_data(json.loads(json.dumps(job.as_data()))) == job


CRASH = RankCrashedError(rank=0, world=2, reason="ZeroDivisionError: 0")
PEER = PeerLostError(rank=0, world=2, reason="RuntimeError: closed by peer")
MENDABLE = UnreadableImagesError(images=(("photo.jpg", "truncated"),))


@pytest.mark.parametrize(
    ("left", "exits", "told"),
    [
        ([MENDABLE], {1: 1, 0: -15}, MENDABLE),
        ([PEER, MENDABLE], {0: 1, 1: 1}, MENDABLE),
        ([CRASH, MENDABLE], {0: 1, 1: 1}, MENDABLE),
        ([PEER], {0: 1, 1: -9}, RankLostError(rank=1, world=2, how="was killed by SIGKILL")),
        ([PEER], {0: 1, 1: 3}, RankLostError(rank=1, world=2, how="ended with 3")),
        ([], {0: -15, 1: -11}, RankLostError(rank=1, world=2, how="was killed by SIGSEGV")),
        ([CRASH], {0: 1, 1: -15}, CRASH),
        ([PEER], {0: 1, 1: -15}, PEER),
    ],
)
def test_one_error_is_told(
    tmp_path: Path, left: list[TLCompileError], exits: dict[int, int], told: TLCompileError
) -> None:
    for number, error in enumerate(left):
        (tmp_path / str(number)).mkdir()
        write_error(tmp_path / str(number) / "error.json", error)
    assert str(launch._why(tmp_path, exits, 2)) == str(told)


# Refusals


def test_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "device_type", lambda recipe: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert num_devices(make_recipe(run={"devices": 2})) == 2
    assert num_devices(make_recipe(run={"devices": "auto"})) == 2
    with pytest.raises(NotEnoughDevicesError) as caught:
        num_devices(make_recipe(run={"devices": 3}))
    assert caught.value.where is not None
    assert "run.devices=2" in caught.value.fix()


def test_a_kind_of_device_that_is_not_there_is_told_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was told to write run.devices=1."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(NoDeviceError) as caught:
        num_devices(make_recipe(run={"device": "cuda"}))
    assert caught.value.where is not None
    assert "cpu" in caught.value.facts()["found"]


def test_a_cpu_is_one_device_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "device_type", lambda recipe: "cpu")
    assert num_devices(make_recipe()) == 1
    assert num_devices(make_recipe(run={"devices": "auto"})) == 1
    assert num_devices(make_recipe(run={"devices": 3})) == 3


def test_a_number_of_devices_beside_another_number_of_processes_is_refused() -> None:
    refuse_other_count(make_recipe(), 4)
    refuse_other_count(make_recipe(run={"devices": 4}), 4)
    refuse_other_count(make_recipe(run={"devices": "auto"}), 4)
    with pytest.raises(OtherRankCountError):
        refuse_other_count(make_recipe(run={"devices": 2}), 4)


def test_python_is_told_how_to_use_several_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "num_devices", lambda recipe: 2)
    with pytest.raises(DevicesFromPythonError, match="torchrun --nproc-per-node 2"):
        train(make_recipe(data={"dataset": "digits"}))


# Whole runs


def test_a_run_on_two_devices_is_one_run(
    small: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    two = load_recipe("small.yaml", ["run.devices=2"])
    record = run_single(two)
    said, errors = capfd.readouterr()
    assert errors == ""
    assert said.count("epoch   1 ") == 1, "one process speaks"
    run = folder()
    assert not list(run.glob("checkpoints*/*"))
    one = load_recipe("small.yaml", ["fine_tune.batch_size=12", "run.output_dir=alone"])
    alone = train_recipe(one, Path("alone"))
    assert difference(weights(Path("alone")), weights(run)) <= 1e-4
    for row, other in zip(numbers(run), numbers(Path("alone")), strict=True):
        assert row == pytest.approx(other, abs=2e-6), "both phases, over all samples"
    assert record["best"]["val"]["accuracy"] == alone.record["best"]["val"]["accuracy"]


def numbers(run: Path) -> list[dict[str, float]]:
    """Return the numbers of metrics.csv without the seconds."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    return [{n: float(c) for n, c in row.items() if n not in ("seconds", "phase")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "code", "told"),
    [
        ("kill:1:7", 1, "rank 1 of 2 was killed by SIGKILL"),
        ("kill:0:7", 1, "rank 0 of 2 was killed by SIGKILL"),
        ("raise:1:7", 2, "image 'photo.jpg' cannot be read"),
        ("crash:1:7", 1, "rank 1 of 2 failed unexpectedly"),
        ("nan:1:7", 1, "not-finite"),
    ],
)
def test_a_rank_that_ends_ends_all_with_one_message_and_a_rerun_goes_on(
    small: Path, straight: dict[str, Tensor], sabotage: str, code: int, told: str
) -> None:
    _, errors = end(start("small.yaml", "run.devices=2", sabotage=sabotage), code)
    assert told in errors
    assert errors.count("fix  ") == 1, "one message"
    assert "Traceback" not in errors
    again, _ = end(start("small.yaml", "run.devices=2"))
    assert "resumed" in again
    assert same(weights(folder()), straight)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_to_the_launcher_saves_once_on_all_ranks(
    small: Path, straight: dict[str, Tensor], number: str, code: int
) -> None:
    process = start("small.yaml", "run.devices=2", sabotage="slow:0:0")
    until(lambda: Path("steps").exists() and int(Path("steps").read_text() or 0) >= 3)
    process.send_signal(getattr(signal, number))
    _, errors = end(process, code)
    assert errors.count("fix  ") == 1
    again, _ = end(start("small.yaml", "run.devices=2"))
    assert "resumed" in again
    assert same(weights(folder()), straight)


@pytest.mark.slow
def test_ranks_end_with_a_launcher_that_is_killed(small: Path) -> None:
    process = start("small.yaml", "run.devices=2", sabotage="slow:0:0")
    until(Path("steps").exists)
    process.kill()
    process.communicate()
    until(lambda: alive() == [], 30)


@pytest.mark.slow
def test_another_number_of_devices_does_not_go_on(small: Path) -> None:
    end(start("small.yaml", "run.devices=2", sabotage="kill:1:7"), 1)
    _, errors = end(start("small.yaml"), 1)
    assert "devices" in errors
    assert "--again" in errors


@pytest.mark.slow
def test_points_of_a_sweep_run_on_several_devices(small: Path) -> None:
    words = ("small.yaml", "-m", "fine_tune.seed=1,2", "run.devices=2")
    said, _ = end(start(*words))
    (manifest,) = Path("sweeps").glob("*/manifest.csv")
    assert manifest.read_text().count(",finished,") == 2, said


TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2")


@pytest.mark.slow
def test_torchrun_trains_what_our_own_launcher_trains(
    small: Path, straight: dict[str, Tensor]
) -> None:
    said, errors = end(start("small.yaml", runner=TORCHRUN))
    assert said.count("epoch   1 ") == 1, errors
    assert same(weights(folder()), straight)
    again, _ = end(start("small.yaml", runner=TORCHRUN))
    assert again.count("is finished") == 1


@pytest.mark.slow
def test_torchrun_shows_the_message(small: Path) -> None:
    for words, told in (
        (("small.yaml", "fine_tune.epoch=3"), "did you mean 'epochs'?"),
        (("small.yaml", "-m", "fine_tune.seed=1,2"), "run.devices=2"),
        (("small.yaml", "run.devices=3"), "drop run.devices"),
    ):
        _, errors = end(start(*words, runner=TORCHRUN), 1)
        assert told in errors


SUBMITIT = ("-m", "hydra/launcher=submitit_local", "hydra.sweep.dir=jobs",
            "hydra.launcher.timeout_min=5")  # fmt: skip


@pytest.mark.slow
def test_points_can_be_jobs_of_hydras_submitit_launcher(small: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    said, _ = end(start("small.yaml", *SUBMITIT, "fine_tune.seed=1,2,3"))
    assert said.count("finished") == 3, "rows of the table"
    records = [json.loads(path.read_text()) for path in Path().rglob("record.json")]
    records = [record for record in records if record.get("weights_of") is None]
    assert [record["state"] for record in records] == ["finished"] * 3


@pytest.mark.slow
def test_a_point_that_fails_as_a_job_is_told(small: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    _, errors = end(start("small.yaml", *SUBMITIT, "data.per_class=10,9999"), 1)
    assert "1 of 2 points failed" in errors
    (manifest,) = Path().rglob("manifest.csv")
    assert "9999" in next(row for row in manifest.read_text().splitlines() if "failed" in row)
    assert "Traceback" not in errors
