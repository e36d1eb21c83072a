"""A run was asked to stop, or cannot go on where it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tlcompile.errors.base import TLCompileError, listed
from tlcompile.errors.run import IO_ERROR, RunError, quoted_path, shown_path


def again_after(how: str) -> str:
    """Word what helps after a process of a run has ended: killed by SIGKILL, or otherwise."""
    again = "run the same command again: it goes on from the last checkpoint"
    if "SIGKILL" in how:
        return f"{again}. Where memory ran out: halve fine_tune.batch_size"
    return again


@dataclass(eq=False, kw_only=True)
class StoppedError(TLCompileError):
    """Nothing is wrong: a signal asked the run to stop. Each signal has an exit code of its own."""

    signal_name: ClassVar[str] = ""

    kept: str

    def headline(self) -> str:
        return f"stopped by {self.signal_name}"

    def facts(self) -> dict[str, str]:
        return {"kept": self.kept}

    def fix(self) -> str:
        return "run the same command again: it goes on from there"


@dataclass(eq=False, kw_only=True)
class TerminatedError(StoppedError):
    """SIGTERM: 128 + 15, as shells count."""

    slug: ClassVar[str] = "terminated"
    exit_code: ClassVar[int] = 143
    signal_name: ClassVar[str] = "SIGTERM"


@dataclass(eq=False, kw_only=True)
class RequeueError(StoppedError):
    """SIGUSR1, which Slurm sends some time before the end: EX_TEMPFAIL, please queue it again."""

    slug: ClassVar[str] = "requeue"
    exit_code: ClassVar[int] = 75
    signal_name: ClassVar[str] = "SIGUSR1"

    def fix(self) -> str:
        return "queue the same command again: it goes on from there"


@dataclass(eq=False, kw_only=True)
class InterruptedRunError(StoppedError):
    """Ctrl-C: 128 + 2, as shells count."""

    slug: ClassVar[str] = "interrupted"
    exit_code: ClassVar[int] = 130
    signal_name: ClassVar[str] = "Ctrl-C"


@dataclass(eq=False, kw_only=True)
class CheckpointsLostError(RunError):
    """Every checkpoint of an unfinished run is damaged, and it was asked never to start over."""

    slug: ClassVar[str] = "checkpoints-lost"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path
    quarantine: Path

    def headline(self) -> str:
        return f"no checkpoint of '{shown_path(self.path)}' can be used"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"damaged ones alone, in '{shown_path(self.quarantine)}'",
            "wanted": "a whole one: --resume never starts over",
        }

    def fix(self) -> str:
        return "start over, without --resume; or restore the folder's files from a backup"


@dataclass(eq=False, kw_only=True)
class OtherRunError(RunError):
    """What decides a run's result is another than when it was begun.

    `differences` are worded; `inexact_helps`: they change last bits alone.
    """

    slug: ClassVar[str] = "other-run"

    path: Path
    differences: tuple[str, ...]
    inexact_helps: bool

    def headline(self) -> str:
        return f"'{shown_path(self.path)}' was begun under other circumstances"

    def facts(self) -> dict[str, str]:
        return {
            "found": listed(self.differences),
            "wanted": "what it was begun with, so that its result is the same to the bit",
        }

    def fix(self) -> str:
        anew = "begin anew, in a folder beside it: add --again"
        if not self.inexact_helps:
            return anew
        return f"go on with other last bits: add --inexact; or {anew}"


@dataclass(eq=False, kw_only=True)
class RunBusyError(RunError):
    """Another process trains in the same folder."""

    slug: ClassVar[str] = "run-busy"

    path: Path

    def headline(self) -> str:
        return f"another process trains in '{shown_path(self.path)}'"

    def fix(self) -> str:
        return f"wait for it, or stop it: see fuser {quoted_path(self.path / 'lock')}"


@dataclass(eq=False, kw_only=True)
class RunFinishedError(RunError):
    """A finished run lies where another was asked to go; `path` is its folder."""

    slug: ClassVar[str] = "run-finished"
    exit_code: ClassVar[int] = 2

    path: Path

    def headline(self) -> str:
        return f"'{shown_path(self.path)}' holds a finished run"

    def facts(self) -> dict[str, str]:
        return {"kept": "nothing was overwritten"}

    def fix(self) -> str:
        beside = self.path.with_name(f"{self.path.name}-2")
        return f"folder={str(beside)!r}, or leave folder out: the recipe's own, or one beside it"


@dataclass(eq=False, kw_only=True)
class OtherStateError(RunError):
    """What training has saved of its tensors does not fit those that train now.

    Attributes:
        what: Was saved: the state of the optimizer, the average of weights.
        missing: Tensors without any.
        left_over: Tensors that do not train now.
    """

    slug: ClassVar[str] = "other-state"

    what: str
    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    def headline(self) -> str:
        return f"the saved {self.what} is not that of what trains now"

    def facts(self) -> dict[str, str]:
        facts = {"wanted": "that of every tensor that trains, and of no other"}
        if self.missing:
            facts["missing"] = f"of {len(self.missing)} tensors: {listed(self.missing)}"
        if self.left_over:
            facts["left over"] = f"of {len(self.left_over)} tensors: {listed(self.left_over)}"
        return facts

    def fix(self) -> str:
        return "resume with the recipe that saved it, or start anew: tlcompile train RECIPE --again"
