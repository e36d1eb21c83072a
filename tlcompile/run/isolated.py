"""Run a point of a sweep in a process of its own, and word how it ended.

    python -m tlcompile.run.isolated FOLDER

The process gets the path of a plan: the recipe with its places, and the run's folder. It never sees
the command line. Imports nothing heavy: whoever starts such a process may be a mere worker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tlcompile
from tlcompile.durable.files import open_log, write_file
from tlcompile.durable.locks import take_lock
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.engines import PointLostError
from tlcompile.run.importing import importing
from tlcompile.run.signals import Stop, stoppable, stopping

if TYPE_CHECKING:
    from tlcompile.run.launch import Job

ABOVE: Final = ".points"  # beside the runs of a sweep: what its processes are told, and say
PLAN: Final = "plan.json"
OUTCOME: Final = "outcome.json"
LOG: Final = "log.txt"
STOP: Final = "stop"  # a file in ABOVE: points that run save and end, others do not begin
POLL: Final = 0.1  # seconds


class PointFailedError(Exception):
    """What a point's process said; its text is that of the error there."""


def plan_point(job: Job) -> Path:
    """Write what a process has to do; return the folder for it and for what it says."""
    folder = folder_of(job)
    write_file(folder / PLAN, json.dumps({**job.as_data(), "cwd": os.getcwd()}).encode())
    (folder / OUTCOME).unlink(missing_ok=True)
    (folder.parent / STOP).unlink(missing_ok=True)
    return folder


def folder_of(job: Job) -> Path:
    """Return the folder of what a point's process is told, and says."""
    return (job.folder.parent / ABOVE / job.folder.name).absolute()


def work(config: Any) -> None:
    """Run one plan in a worker that a launcher of Hydra's started; `config.plan` names it."""
    run_apart(Path(config.plan), log=True)


def run_apart(folder: Path, *, log: bool) -> None:
    """Run a planned point in a process of its own until it ends; what it says is in its folder.

    A signal makes the point save and end. One that another library waits for, as submitit does to
    queue a job again, is handed to it when the point has saved.

    Args:
        folder: As `plan_point` returned it.
        log: Whether its output goes to a file; else to the terminal.

    Raises:
        StoppedError: A signal asked for it.
    """
    if _stopped(folder):
        return
    (folder / OUTCOME).unlink(missing_ok=True)
    with stopping() as stop, _waiting_for_others() as others:
        with open_log(folder / LOG) if log else nullcontext() as output:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "tlcompile.run.isolated", str(folder)],
                env=os.environ | {"PYTHONPATH": _python_path()},
                stdout=output,
                stderr=subprocess.STDOUT if log else None,
            )
        _wait(child, folder, stop, others)
        if child.returncode and not (folder / OUTCOME).exists():
            _write_outcome(folder, PointLostError(how=_ended(child.returncode)))


def _wait(child: subprocess.Popen[bytes], folder: Path, stop: Stop, others: list[int]) -> None:
    """Wait until a point's process ends; pass a signal on once."""
    told = False
    while child.poll() is None:
        if not told and (stop.asked or others or _stopped(folder)):
            # Never SIGINT: Ctrl-C reaches it, too, and a second one would end it at once.
            asked = signal.SIGUSR1 if others or stop.asked == signal.SIGUSR1 else signal.SIGTERM
            child.send_signal(asked)
            told = True
        time.sleep(POLL)


@contextmanager
def _waiting_for_others() -> Iterator[list[int]]:
    """Take SIGUSR2, by which submitit's jobs learn that their time is over, while a point runs.

    Whoever waited for it gets it at the end.
    """
    number, noted = signal.SIGUSR2, list[int]()
    before = signal.getsignal(number)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    signal.signal(number, lambda given, _frame: noted.append(given))
    try:
        yield noted
    finally:
        signal.signal(number, before)
    if noted:
        before(number, None)


def result_of(job: Job) -> dict[str, Any]:
    """Return the record of a point that ran in a process of its own.

    Raises:
        PointFailedError: What went wrong there.
        PointLostError: Nothing is known of it.
    """
    from tlcompile.run.folder import read_record

    record, folder = read_record(job.folder), folder_of(job)
    if record is not None:
        return record
    said = read_outcome(folder)
    raise (
        PointLostError(how="was lost, with its worker") if said is None else PointFailedError(said)
    )


def read_outcome(folder: Path) -> str | None:
    """Return what a point's process said of its end; None: nothing yet."""
    try:
        return str(json.loads((folder / OUTCOME).read_bytes())["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_over(job: Job) -> bool:
    """Tell whether a point has ended, well or not."""
    from tlcompile.run.folder import read_record

    return read_outcome(folder_of(job)) is not None or read_record(job.folder) is not None


def _write_outcome(folder: Path, error: Exception) -> None:
    text = str(error) or type(error).__name__
    write_file(folder / OUTCOME, json.dumps({"error": text}).encode())


def _stopped(folder: Path) -> bool:
    return (folder.parent / STOP).exists()


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _python_path() -> str:
    above, path = str(Path(tlcompile.__file__).parent.parent), os.environ.get("PYTHONPATH")
    return f"{above}{os.pathsep}{path}" if path else above


def main(path: str) -> int:
    """Train the point of a plan; return the exit code."""
    folder = Path(path)
    _save_with_parent()
    try:
        with stoppable():
            _train(folder)
    except TLCompileError as error:
        _write_outcome(folder, error)
        return error.exit_code
    except Exception as error:  # a row of the sweep says it
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        _write_outcome(folder, error)
        return 1
    return 0


def _train(folder: Path) -> None:
    with importing():  # torch; here, as signals are waited for by now
        from tlcompile.run.folder import read_record
        from tlcompile.run.launch import Job
        from tlcompile.run.single import train_on
        from tlcompile.training.ranks import ALONE
    plan = json.loads((folder / PLAN).read_bytes())
    os.chdir(plan["cwd"])  # paths of the recipe are relative to where the command was typed
    job = Job.from_data(plan)
    while (lock := take_lock(folder / "lock")) is None:
        time.sleep(POLL)  # another process trains this point, as one that Slurm began before
    with lock:
        if read_record(job.folder) is None:
            train_on(job, ALONE)


def _save_with_parent() -> None:
    """Save and end when whoever started this process is gone: nobody else would end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
