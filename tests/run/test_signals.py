"""Signals end a command at once; training only notes them. Runs are stopped in tests/reliability."""
# ruff: noqa: PT012, SIM117 - where a block is left is what is tested

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tlcompile.errors.resume import (
    InterruptedRunError,
    RequeueError,
    StoppedError,
    TerminatedError,
)
from tlcompile.run import cli
from tlcompile.run.signals import ERRORS, stoppable, stopping

SIGNALS = [
    pytest.param(signal.SIGTERM, TerminatedError, 143, id="SIGTERM"),
    pytest.param(signal.SIGUSR1, RequeueError, 75, id="SIGUSR1"),
    pytest.param(signal.SIGINT, InterruptedRunError, 130, id="SIGINT"),
]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ERRORS}
    yield
    assert {number: signal.getsignal(number) for number in ERRORS} == before


@pytest.mark.parametrize(("number", "kind", "code"), SIGNALS)
def test_a_signal_ends_a_command_at_once(number: int, kind: type[StoppedError], code: int) -> None:
    reached = False
    with pytest.raises(kind) as caught, stoppable():
        send(number)
        reached = True
    assert not reached
    assert caught.value.exit_code == code


@pytest.mark.parametrize(("number", "kind", "code"), SIGNALS)
def test_a_signal_is_only_noted_where_it_would_break_something(
    number: int, kind: type[StoppedError], code: int
) -> None:
    done = []
    with pytest.raises(kind) as caught, stopping() as stop:
        assert stop.asked is None
        stop.check()
        done.append("before")
        send(number)
        done.append("the step that ran")
        assert stop.asked == number
        stop.check("a checkpoint")
        done.append("the next step")
    assert done == ["before", "the step that ran"]
    assert caught.value.exit_code == code
    assert caught.value.kept == "a checkpoint"
    assert "same command again" in caught.value.fix()


def test_who_never_looks_is_ended_behind_the_block() -> None:
    done = []
    with pytest.raises(TerminatedError), stopping():
        send(signal.SIGTERM)
        done.append("all of it")
    assert done == ["all of it"]


def test_blocks_may_be_nested_and_the_outermost_ends() -> None:
    done = []
    with pytest.raises(TerminatedError), stoppable():
        with stopping():
            with stopping():
                pass
            with contextlib.suppress(Exception):  # as a sweep does with a point that failed
                with stopping() as stop:
                    send(signal.SIGTERM)
                    stop.check()
            done.append("the next point")
    assert done == []


def test_the_first_signal_counts() -> None:
    with pytest.raises(RequeueError), stopping():
        send(signal.SIGUSR1)
        send(signal.SIGTERM)


def test_a_signal_is_no_failure_of_what_it_hits() -> None:
    """As decoders and tracers do: `except Exception` words a failure of somebody else's code."""
    with pytest.raises(TerminatedError), stoppable():
        try:
            send(signal.SIGTERM)
        except Exception:
            pytest.fail("taken for a damaged image")


def test_what_was_ignored_stays_ignored() -> None:
    """A shell ignores Ctrl-C for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping() as stop:
            send(signal.SIGINT)
            assert stop.asked is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_installs_nothing() -> None:
    found: list[object] = []

    def work() -> None:
        with stopping() as stop:
            found.append((signal.getsignal(signal.SIGTERM), stop.asked))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, None)]


def test_a_thread_of_a_stoppable_run_sees_what_was_asked() -> None:
    found: list[object] = []

    def work() -> None:
        with stoppable() as stop:
            found.append(stop.asked)

    with pytest.raises(TerminatedError), stopping():
        send(signal.SIGTERM)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert found == [signal.SIGTERM]


SECOND = """
import sys, time
from tlcompile.run.signals import stopping
with stopping():
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def test_the_second_ctrl_c_ends_the_process() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SECOND], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(10) == -signal.SIGINT
        finally:
            child.kill()


@pytest.mark.parametrize(("number", "kind", "code"), SIGNALS)
def test_the_command_has_an_exit_code_for_each(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    kind: type[StoppedError],
    code: int,
) -> None:
    def run(_verb: str, _words: object) -> int:
        send(number)
        time.sleep(10)
        return 0

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["train", "recipe.yaml"]) == code
    told = capsys.readouterr().err
    assert told.startswith(f"stopped by {kind.signal_name} [")
    assert "Traceback" not in told
