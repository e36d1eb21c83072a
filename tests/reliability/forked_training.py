"""Train in children of a process that has only imported things; kill them, or ask them to stop.

A script, run by test_killed_training.py and test_polite_stop.py: a fork and a run cost 0.3 s, a new
process 3, and a process that has computed must not be forked.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchmetrics.classification
import torchmetrics.regression  # noqa: F401
from PIL import Image

from reliability.training_runs import (
    differences,
    ending,
    note,
    note_places,
    prepare,
    save_after_each_step,
    train,
)
from tlcompile.durable import system
from tlcompile.errors.resume import StoppedError
from tlcompile.run import fit  # noqa: F401, Hydra
from tlcompile.run.signals import ERRORS, stoppable

FAILED = 99  # the exit code of a child that raised
CODES = {number: kind.exit_code for number, kind in ERRORS.items()}


@dataclass
class Report:
    """What happened.

    Attributes:
        stops: Children that were killed, or ended as asked.
        runs: Runs that came to their end.
        wrong: How those differ from the run that nobody touched.
        slowest: Seconds from a signal to the end.
        places: Stops by phase; `start` is before the first save.
        saving: Stops while a checkpoint was being written.
        most_tries: Starts that one run needed.
    """

    stops: int = 0
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    places: Counter[str] = field(default_factory=Counter)
    saving: int = 0
    most_tries: int = 0


def wait(child: int, seconds: float = 600.0) -> int | None:
    """Return how a child ended, below 0 by a signal; None: it has not, in so many seconds."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.001)


class Trainings:
    """Trains one shape again and again."""

    def __init__(self, root: Path, shape: str) -> None:
        self.root, self.shape = root, shape
        self.report = Report()
        began = time.monotonic()
        assert wait(self.start("whole")) == 0
        self.seconds = time.monotonic() - began
        saved = (self.root / "whole.saved").read_text()
        self.first = float(saved.split()[0]) - began
        self.whole = ending(root / "whole")
        assert self.whole

    def start(self, name: str) -> int:
        """Fork a child that trains; it is the first of a process group."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, CODES)
        child = os.fork()
        if child:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            return child
        code = FAILED
        try:
            os.setpgid(0, 0)
            sys.stdout = sys.stderr = (self.root / f"{name}.out").open("a", buffering=1)
            save_after_each_step()
            note_places(self.root / f"{name}.places", self.root / f"{name}.saved")
            said = self.root / f"{name}.said"
            with stoppable():
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                code = train(self.root, self.shape, name, lambda line: note(said, f"{line}\n"))
        except StoppedError as error:
            code = error.exit_code
        except BaseException as error:
            note(self.root / "errors", f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)

    def place(self, name: str) -> None:
        """Count where a run was stopped."""
        path = self.root / f"{name}.places"
        last = path.read_text().splitlines()[-1] if path.exists() else "start begins"
        where, what = last.split()
        self.report.places[f"phase {where.split('.')[0]}" if "." in where else where] += 1
        self.report.saving += what == "begins" and where != "start"

    def compare(self, name: str) -> None:
        """Compare a run that came to its end, and forget it."""
        found = differences(ending(self.root / name), self.whole)
        self.report.runs += 1
        if found:
            self.report.wrong.append(f"{name}: {found}")
        shutil.rmtree(self.root / name)

    def stop_often(self, stops: int, seed: int, signals: list[int]) -> None:
        """Stop children at random instants; let each run come to its end."""
        draw = random.Random(seed)
        name, tries = "run0", 0
        while self.report.stops < stops:
            child, tries = self.start(name), tries + 1
            early = draw.random() < 0.25  # most are stopped while they train
            code = wait(child, draw.uniform(0 if early else self.first, self.seconds))
            if code is None:
                number = draw.choice(signals)
                code = self.ended_by(child, number)
            if code == FAILED:
                raise RuntimeError((self.root / "errors").read_text())
            if code:
                self.report.stops += 1
                self.place(name)
                continue
            self.report.most_tries = max(self.report.most_tries, tries)
            self.compare(name)
            name, tries = f"run{self.report.runs}", 0
        assert wait(self.start(name)) == 0
        self.compare(name)

    def finish_under_fire(self, runs: int, number: int) -> None:
        """Stop each child after twice the time to its first checkpoint; every run has to end."""
        for turn in range(runs):
            name, tries, code = f"fire{turn}", 0, None
            while code != 0:
                child, tries = self.start(name), tries + 1
                code = wait(child, 2 * self.first)
                if code is None:
                    code = self.ended_by(child, number)
                assert code != FAILED, (self.root / "errors").read_text()
                self.report.stops += bool(code)
            self.report.most_tries = max(self.report.most_tries, tries)
            self.compare(name)

    def ended_by(self, child: int, number: int) -> int | None:
        """Send a signal; return the exit code when it is the right one, 0 when it was too late."""
        began = time.monotonic()
        os.kill(child, number)
        code = wait(child)
        self.report.slowest = max(self.report.slowest, time.monotonic() - began)
        wanted = -number if number == signal.SIGKILL else CODES[signal.Signals(number)]
        if code not in (0, wanted):
            self.report.wrong.append(f"{signal.Signals(number).name}: exit code {code}")
        if self.lives_on(child):
            self.report.wrong.append("a process of its group lives on")
        return code

    def lives_on(self, group: int) -> bool:
        """Say whether a process group is there after ten seconds; `uname` may take some of them."""
        for _ in range(1000):
            try:
                os.killpg(group, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.01)
        return True


def do_not_wait() -> None:
    """Let bytes stay with the kernel: a killed process has lost none of them."""
    for name in ("fsync", "fsync_dir"):
        setattr(system.SystemCalls, name, lambda *_values: None)


def main(place: Path, jobs: list[str]) -> dict[str, Any]:
    """Do jobs such as `phases:6:9,15`: stop children of a shape six times, by one of these signals.

    `phases:live6:9` lets six runs come to their end under fire.

    Returns:
        What happened, job by job.
    """
    torch.set_num_threads(1)
    do_not_wait()
    Image.init()
    found = {}
    for job in jobs:
        shape, stops, numbers = job.split(":")
        root = place / str(len(found))
        prepare(root)
        trainings = Trainings(root, shape)
        signals = list(map(int, numbers.split(",")))
        if stops.startswith("live"):
            trainings.finish_under_fire(int(stops.removeprefix("live")), signals[0])
        else:
            trainings.stop_often(int(stops), int(stops), signals)
        found[job] = vars(trainings.report)
    return found


if __name__ == "__main__":
    done = main(Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.write(f"{json.dumps(done)}\n")
