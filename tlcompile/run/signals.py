"""SIGTERM, SIGUSR1 and Ctrl-C: a command ends at once, training and extraction at a good place.

Nothing is ever saved inside a handler. Imports nothing heavy: handlers come before torch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from tlcompile.errors.resume import (
    InterruptedRunError,
    RequeueError,
    StoppedError,
    TerminatedError,
)

ERRORS: Final[dict[signal.Signals, type[StoppedError]]] = {
    signal.SIGTERM: TerminatedError,
    signal.SIGUSR1: RequeueError,
    signal.SIGINT: InterruptedRunError,
}
FINISHED: Final = "what was finished"


class Stopping(KeyboardInterrupt):
    """On its way out to `stoppable`; no `except Exception` takes it for a failure."""

    def __init__(self, kept: str) -> None:
        super().__init__(kept)
        self.kept = kept


class Stop:
    """What was asked for.

    Attributes:
        asked: The first signal that came; None: none yet.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.polite = 0  # how many `stopping` blocks we are in

    def ask(self, number: int) -> None:
        """Take what another rank was told; 0: nothing."""
        self.asked = self.asked or (signal.Signals(number) if number else None)

    def check(self, kept: str = FINISHED) -> None:
        """End here if a signal came; `kept` says what is safe.

        Raises:
            Stopping: It came; `stoppable` makes a StoppedError of it.
        """
        if self.asked is not None:
            raise Stopping(kept)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if number == signal.SIGINT:  # the second Ctrl-C ends the process, whatever it does
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.asked = self.asked or signal.Signals(number)
        if not self.polite:
            raise Stopping(FINISHED)


_active: list[Stop] = []  # of the process, as its handlers are


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let signals end the block at once, but for `stopping` blocks inside.

    Raises:
        StoppedError: A signal came.
    """
    if _active:
        yield _active[0]
        return
    stop = Stop()
    with _handling(stop):
        try:
            yield stop
        except Stopping as error:
            assert stop.asked is not None
            raise ERRORS[stop.asked](kept=error.kept) from None


@contextmanager
def stopping() -> Iterator[Stop]:
    """Only note signals: the block asks `check` where it can stop, and is asked at its end.

    Raises:
        StoppedError: A signal came.
    """
    with stoppable() as stop:
        stop.check()  # a destructor may have swallowed what ended the command
        stop.polite += 1
        try:
            yield stop
        finally:
            stop.polite -= 1
        stop.check()


@contextmanager
def _handling(stop: Stop) -> Iterator[None]:
    """Install the handlers, in the main thread alone; what was ignored stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ERRORS}
    _active.append(stop)
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop.handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _active.clear()
