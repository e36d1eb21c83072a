"""What is shown while a run trains: on a terminal only, and without waiting for the device."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tlcompile.run.live import Told, live
from tlcompile.training.loop import EpochDone, Stepped
from tlcompile.training.metrics import Score
from tlcompile.training.state import EpochRow


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def trainer(name: str = "main") -> Any:
    return SimpleNamespace(
        state=SimpleNamespace(epoch=0, step=0),
        settings=SimpleNamespace(name=name, epochs=5, monitor="val/accuracy"),
        optimizers=SimpleNamespace(rates=lambda: {"head": 1e-3, "rest": 1e-4}),
        steps_an_epoch=lambda: 4,
    )


ROW = EpochRow(1, "main", Score(0.51234, 8, 10), Score(0.6, 3, 4), 1e-3, 1.5)
DONE = EpochDone(ROW, True, True, None)


def test_it_says_epoch_step_rate_and_images_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 10.5, 10.5])
    monkeypatch.setattr("tlcompile.run.live.time.perf_counter", lambda: next(now))
    running = trainer("head")
    told = Told(running)
    told.take(Stepped(32))
    running.state.step = 1
    assert told.worded() == "head: epoch 1/5  step 1/4  lr 0.001  64 images/s"
    assert told.done() == 1


def test_the_loss_and_the_metric_are_those_of_the_last_epoch() -> None:
    running = trainer()
    told = Told(running)
    running.state.step = 3
    told.take(Stepped(32))
    assert "loss" not in told.worded()
    told.take(DONE)
    running.state.epoch, running.state.step = 1, 0
    assert told.worded() == "epoch 2/5  step 0/4  loss 0.5123  val/accuracy 0.75  lr 0.001"
    assert told.done() == 4


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, running = Terminal(), trainer()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with live(running) as show:
        running.state.epoch = 1
        show(DONE)
    assert "epoch 2/5" in terminal.getvalue()
    assert "0.75" in terminal.getvalue()


def test_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with live(trainer()) as show:
        show(Stepped(32))
        show(DONE)
    assert not file.getvalue()
