"""Programs in turn, each in a process of its own: what one does to its process never helps another.

A program is a function `program(pause, ...)`, which calls `pause()` at the end of each of its steps.
Between its steps it waits, while another one runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

Pause = Callable[[], None]


@dataclass(frozen=True)
class Spent:
    """Seconds that something took: CPU time of a process and its ended children, and the clock."""

    cpu: float
    clock: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.cpu + other.cpu, self.clock + other.clock)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu - other.cpu, self.clock - other.clock)

    def __mul__(self, factor: float) -> Spent:
        return Spent(self.cpu * factor, self.clock * factor)

    def __truediv__(self, other: Spent) -> Spent:
        return Spent(self.cpu / other.cpu, self.clock / other.clock)


def now() -> Spent:
    """Read the clocks of this process."""
    times = os.times()
    children = times.children_user + times.children_system
    return Spent(time.process_time() + children, time.perf_counter())


def median(times: Iterable[Spent]) -> Spent:
    """Return the medians of CPU time and of the clock, each for itself."""
    cpu, clock = zip(*((t.cpu, t.clock) for t in times), strict=True)
    return Spent(statistics.median(cpu), statistics.median(clock))


def spent(work: Callable[[], object]) -> Spent:
    """Run something once in this process; return what that took."""
    start = now()
    work()
    return now() - start


def in_turn(sides: dict[str, Callable[[], Spent]], rounds: int) -> dict[str, Spent]:
    """Call every side once a round, one after the other, in this process; return medians by name."""
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return {name: median(times) for name, times in found.items()}


class Side:
    """A program in a process of its own, run step by step.

    Args:
        program: A function of a module; it is called in a new process.
        arguments: Its arguments behind `pause`.
    """

    def __init__(self, program: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=_serve, args=(end, program, arguments))

    def __enter__(self) -> Side:
        self._process.start()
        self._answer()  # it has imported what it needs
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # it may have ended by an error
            self._pipe.send("end")
        self._process.join()

    def step(self) -> Spent:
        """Let it run until its next pause; return what that took."""
        self._pipe.send("go")
        return self._answer()

    def _answer(self) -> Spent:
        try:
            answer = self._pipe.recv()
        except EOFError:
            answer = "a side has been killed"
        if isinstance(answer, str):
            raise SystemExit(answer)
        spent: Spent = answer
        return spent


def once(program: Callable[..., None], *arguments: Any) -> Spent:
    """Run a program of one step; return what that took."""
    with Side(program, *arguments) as side:
        return side.step()


def _serve(pipe: Connection, program: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run a program in this process, and tell what each step took."""
    start = Spent(0, 0)

    def pause() -> None:
        nonlocal start
        pipe.send(now() - start)
        if pipe.recv() == "end":
            raise SystemExit  # so that it clears its folders away
        start = now()

    start = now()
    try:
        pause()
        program(pause, *arguments)
    except Exception:
        pipe.send(traceback.format_exc())
