"""B4: SIGTERM, SIGUSR1 and Ctrl-C at any instant: saved, gone soon, resumed to the bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from durable_disks import do_not_wait

from reliability.conftest import STOPPED, UNDER_FIRE, Reports
from reliability.small_runs import temporaries
from reliability.training_runs import (
    SHAPES,
    differences,
    ending,
    prepare,
    save_after_each_step,
    train,
)
from tlcompile.durable import system, take_lock
from tlcompile.errors.resume import StoppedError, TerminatedError
from tlcompile.features.prefix import Prefix
from tlcompile.run.saving import Saving
from tlcompile.run.signals import Stop, stoppable
from tlcompile.training import loop
from tlcompile.training.checkpoint import Checkpoints
from tlcompile.training.compute import Compute
from tlcompile.training.step import Step

GRACE = 10.0  # seconds


@pytest.mark.parametrize(
    "jobs",
    [
        STOPPED,
        *(
            pytest.param((f"{shape}:100:{number}",), marks=pytest.mark.slow)
            for shape, number in (("cached", 15), ("phases", 10), ("ema", 2), ("sweep", 15))
        ),
    ],
    ids=lambda jobs: "+".join(jobs),
)
def test_stopped_at_random_instants(
    forked: Callable[[tuple[str, ...]], Reports], jobs: tuple[str, ...]
) -> None:
    """Exit codes, surviving processes and results are looked at in forked_training.py."""
    for job, report in forked(jobs).items():
        assert report["wrong"] == [], job
        assert report["stops"] == int(job.split(":")[1])
        assert report["slowest"] < GRACE


@pytest.mark.parametrize(
    "job",
    [*UNDER_FIRE, *(pytest.param(f"{s}:live50:9", marks=pytest.mark.slow) for s in SHAPES)],
)
def test_every_run_ends_though_it_is_killed_again_and_again(
    forked: Callable[[tuple[str, ...]], Reports], job: str
) -> None:
    """Twice the time to the first checkpoint is enough to get on."""
    (report,) = forked((job,)).values()
    assert report["wrong"] == []
    assert report["runs"] == int(job.split(":")[1].removeprefix("live"))


# In this process


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    do_not_wait(monkeypatch)
    prepare(tmp_path)
    return tmp_path


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def signal_at(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> list[int]:
    """Send SIGTERM inside the n-th call of a method; return the calls counted."""
    method, calls = getattr(owner, name), [0]

    def called(*values: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == number:
            send()
        return method(*values, **named)

    patch.setattr(owner, name, called)
    return calls


def stopped(root: Path, shape: str, owner: Any, name: str, number: int) -> StoppedError:
    """Train until SIGTERM comes inside the n-th call of a method."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, owner, name, number)
        with pytest.raises(TerminatedError) as caught, stoppable():
            train(root, shape, "stopped")
    return caught.value


def test_a_step_that_runs_is_finished_and_saved(root: Path) -> None:
    error = stopped(root, "cached", Step, "__call__", 4)
    assert error.kept == "a checkpoint before epoch 2, step 2"  # where it goes on
    run = root / "stopped" / "run"
    saved = Checkpoints(run, run=run.name).newest()
    assert saved is not None
    assert (saved.data["state"]["steps"], saved.data["state"]["step"]) == (4, 1)
    assert json.loads((run / "record.json").read_text())["state"] == "running"


def test_a_commit_that_has_begun_ends(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes between two writes of the second generation, at the end of an epoch."""
    save_after_each_step(monkeypatch.setattr)
    numbers: list[int] = []
    commit = Checkpoints.save

    def noted(self: Checkpoints, number: int, *rest: object) -> None:
        if number == 2:
            with pytest.MonkeyPatch.context() as patch:
                signal_at(patch, system.SystemCalls, "write", 2)
                commit(self, number, *rest)  # type: ignore[arg-type]
        else:
            commit(self, number, *rest)  # type: ignore[arg-type]
        numbers.append(number)

    monkeypatch.setattr(Checkpoints, "save", noted)
    with pytest.raises(TerminatedError), stoppable():
        train(root, "cached", "stopped")
    run = root / "stopped" / "run"
    assert 2 in numbers
    assert temporaries(run) == []
    saved = Checkpoints(run, run=run.name).newest()
    assert saved is not None
    assert saved.number >= 2


def test_validation_is_left_at_once_and_the_last_checkpoint_stands(root: Path) -> None:
    error = stopped(root, "cached", loop, "predict", 2)
    assert error.kept == "the last checkpoint"


def test_extraction_is_left_at_once_and_keeps_its_rows(root: Path) -> None:
    error = stopped(root, "cached", Prefix, "__call__", 1)
    assert error.kept == "what was finished"
    assert not (root / "stopped" / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("shape", "name"), [("phases", "save"), ("phases", "resume"), ("phases", "finish_phase")]
)
def test_what_was_stopped_goes_on_to_the_bit(
    root: Path, monkeypatch: pytest.MonkeyPatch, shape: str, name: str
) -> None:
    save_after_each_step(monkeypatch.setattr)
    train(root, shape, "whole")
    stopped(root, shape, Saving, name, 1)
    train(root, shape, "stopped")
    assert differences(ending(root / "stopped"), ending(root / "whole")) == []


def test_a_handler_that_saves_would_be_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded mistake of the bar: weights that have moved, and a counter that has not."""
    save_after_each_step(monkeypatch.setattr)
    train(root, "cached", "whole")
    current: list[Saving] = []
    began, handle, step = Saving.began, Stop.handle, Compute.step

    def beginning(self: Saving, *rest: Any) -> None:
        current.append(self)
        began(self, *rest)

    def saving_inside(self: Stop, number: int, frame: Any) -> None:
        current[-1].save()
        self.polite = 0
        handle(self, number, frame)

    def stepping(self: Compute, *rest: Any, **named: Any) -> None:
        step(self, *rest, **named)
        send()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saving, "began", beginning)
        patch.setattr(Stop, "handle", saving_inside)
        patch.setattr(Compute, "step", stepping)
        with pytest.raises(TerminatedError), stoppable():
            train(root, "cached", "stopped")
    train(root, "cached", "stopped")
    assert differences(ending(root / "stopped"), ending(root / "whole"))


def test_nothing_stays_locked_or_half_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_after_each_step(monkeypatch.setattr)
    stopped(root, "phases", Saving, "save", 9)
    train(root, "phases", "stopped")
    assert temporaries(root / "stopped" / "run") == []
    for path in root.rglob("lock"):
        lock = take_lock(path)
        assert lock is not None
        with lock:
            pass
