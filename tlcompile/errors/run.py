"""The machine, the disk or the run does not fit: the user changes where or how it runs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tlcompile.errors.base import TLCompileError, listed, one_line

PATH_LIMIT = 400  # characters; a shortened path cannot be pasted
IO_ERROR = 74  # the exit status EX_IOERR of sysexits.h


def shown_path(path: Path) -> str:
    """Show a path whole, so that it can be pasted, with control characters escaped."""
    return one_line(path, PATH_LIMIT)


def quoted_path(path: Path) -> str:
    """Show a path as a word of a shell's command."""
    return shlex.quote(shown_path(path))


@dataclass(eq=False, kw_only=True)
class RunError(TLCompileError):
    """The machine, the disk or the run does not fit."""


# The disk


@dataclass(eq=False, kw_only=True)
class DiskFullError(RunError):
    """A file does not fit on its disk or into its quota; `free_bytes` is None where nobody knows."""

    slug: ClassVar[str] = "disk-full"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path
    needed_bytes: int
    free_bytes: int | None

    def headline(self) -> str:
        return f"there is no room to write '{shown_path(self.path)}'"

    def facts(self) -> dict[str, str]:
        free = "unknown" if self.free_bytes is None else f"{self.free_bytes:,} bytes"
        return {"needed": f"{self.needed_bytes:,} bytes", "free": free, "kept": "what was there"}

    def fix(self) -> str:
        return (
            "free some room, or write to another disk with run.output_dir=FOLDER; "
            "then run the same command again"
        )


@dataclass(eq=False, kw_only=True)
class NoPermissionError(RunError):
    """A file or folder may not be written or read by this user."""

    slug: ClassVar[str] = "no-permission"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path

    def headline(self) -> str:
        return f"no permission for '{shown_path(self.path)}'"

    def fix(self) -> str:
        see = f"see who may: ls -ld {quoted_path(self.path.parent)}"
        return f"{see}; or write elsewhere with run.output_dir=FOLDER"


@dataclass(eq=False, kw_only=True)
class WriteFailedError(RunError):
    """The operating system refused a write for a reason other than room or permission."""

    slug: ClassVar[str] = "write-failed"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path
    reason: str

    def headline(self) -> str:
        return f"'{shown_path(self.path)}' could not be written"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason, PATH_LIMIT), "kept": "what was there"}

    def fix(self) -> str:
        if self.reason.startswith(_NO_PLACE):
            return "write elsewhere: name a folder with run.output_dir=FOLDER, or a file with --out"
        return "look at the disk (dmesg, df), then run the same command again, or elsewhere"


# The disk is sound: a folder cannot be made there, or something else has the name.
_NO_PLACE = ("ENOENT", "EEXIST", "ENOTDIR", "EISDIR", "EROFS", "ENAMETOOLONG")


@dataclass(eq=False, kw_only=True)
class DamagedFileError(RunError):
    """A file is not what was written: its size or its SHA-256 differs, or it is gone."""

    slug: ClassVar[str] = "damaged-file"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path
    expected: str
    found: str

    def headline(self) -> str:
        return f"'{shown_path(self.path)}' is not the file that was written"

    def facts(self) -> dict[str, str]:
        limit = PATH_LIMIT
        return {"expected": one_line(self.expected, limit), "found": one_line(self.found, limit)}

    def fix(self) -> str:
        folder = self.path.parent
        return (
            f"move it aside and run again: mv {quoted_path(folder)} {quoted_path(folder)}.damaged"
        )


# The machine and the training


@dataclass(eq=False, kw_only=True)
class NoDeviceError(RunError):
    """The device that was asked for is not in this machine."""

    slug: ClassVar[str] = "no-device"
    exit_code: ClassVar[int] = 2

    wanted: str
    available: tuple[str, ...]

    def headline(self) -> str:
        return f"this machine has no device '{one_line(self.wanted)}'"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.available)}

    def fix(self) -> str:
        return f"run with run.device={self.available[0] if self.available else 'cpu'}"


@dataclass(eq=False, kw_only=True)
class NotFiniteLossError(RunError):
    """A step met NaN or infinity, and was not taken.

    Attributes:
        epoch: Counts from 1.
        step: In the epoch; counts from 1.
        lr: The highest rate of the step.
        first_layer: The layer or parameter that had the first such value.
        what: What it was a value of: feature, label, weight, loss or gradient.
        phase: Its name; `main` where there is but one.
        samples: Names of those it was seen in.
        count: Samples of the batch.
        gradient_norm: Of all gradients together; None where there were none yet.
    """

    slug: ClassVar[str] = "not-finite-loss"

    epoch: int
    step: int
    lr: float
    first_layer: str | None
    what: str = "loss"
    phase: str = "main"
    samples: tuple[str, ...] = ()
    count: int = 0
    gradient_norm: float | None = None

    def headline(self) -> str:
        during = f" of phase '{one_line(self.phase)}'" if self.phase != "main" else ""
        return f"a {self.what} is not finite at epoch {self.epoch}, step {self.step}{during}"

    def facts(self) -> dict[str, str]:
        facts = {}
        if self.first_layer is not None:
            facts["first in"] = f"'{one_line(self.first_layer)}'"
        if self.samples:
            names = listed([one_line(name, PATH_LIMIT) for name in self.samples])
            facts["samples"] = f"{len(self.samples)} of the batch's {self.count}: {names}"
        facts["lr"] = f"{self.lr:g}"
        if self.gradient_norm is not None:
            facts["gradient norm"] = f"{self.gradient_norm:g}"
        return {**facts, "kept": "the last checkpoint, the best weights, metrics.csv"}

    def fix(self) -> str:
        if self.what == "feature":
            return "look at these images, and compute their features anew: features.cache=off"
        if self.what == "label":
            return "correct the labels of these samples"
        return f"learn more slowly: {self._slower()}"

    def _slower(self) -> str:
        if self.phase != "main":
            return f"write lr: {self.lr / 10:g} in phase '{one_line(self.phase)}'"
        return f"fine_tune.optimizer.lr={self.lr / 10:g}"


@dataclass(eq=False, kw_only=True)
class OutOfMemoryError(RunError):
    """A step does not fit into memory, however small its micro-batch.

    Attributes:
        device: Where.
        micro_batch: Images computed at once, in the last try.
        halvings: How often it was halved.
        reason: What the device says.
    """

    slug: ClassVar[str] = "out-of-memory"

    device: str
    micro_batch: int
    halvings: int
    reason: str

    def headline(self) -> str:
        return (
            f"{one_line(self.device)} has too little memory for {self.micro_batch} images at once"
        )

    def facts(self) -> dict[str, str]:
        return {
            "found": one_line(self.reason, PATH_LIMIT),
            "tried": f"the micro-batch was halved {self.halvings} times",
            "kept": "the last checkpoint, the best weights, metrics.csv",
        }

    def fix(self) -> str:
        if self.micro_batch > 1:  # processes that train together do not halve it by themselves
            half = self.micro_batch // 2
            return f"write run.micro_batch: {half}: less at once, the same steps of the optimizer"
        return "train less of the model (freeze.upto nearer the output), or another run.device"


@dataclass(eq=False, kw_only=True)
class NothingTrainsError(RunError):
    """Every parameter is frozen, so there is nothing to train; `frozen` is how many there are."""

    slug: ClassVar[str] = "nothing-trains"
    exit_code: ClassVar[int] = 2

    frozen: int

    def headline(self) -> str:
        return f"nothing trains: all {self.frozen:,} parameters are frozen"

    def fix(self) -> str:
        return "freeze less: write freeze: {upto: head}"


# Runs, sweeps and bundles


@dataclass(eq=False, kw_only=True)
class SweepFailedError(RunError):
    """Some points of a sweep failed; the others are done and stay."""

    slug: ClassVar[str] = "sweep-failed"

    failed: int
    total: int

    def headline(self) -> str:
        return f"{self.failed} of {self.total} points failed"

    def facts(self) -> dict[str, str]:
        done = self.total - self.failed
        are = "1 point is" if done == 1 else f"{done} points are"
        return {"kept": f"{are} done; manifest.csv has each error"}

    def fix(self) -> str:
        return "mend the cause and run the same command again: points that are done are skipped"


@dataclass(eq=False, kw_only=True)
class DuplicatePointError(RunError):
    """Points of a sweep are the same recipe once they are composed.

    `idle` are the keys in which they differ and which are no part of a recipe's identity.
    """

    slug: ClassVar[str] = "duplicate-point"
    exit_code: ClassVar[int] = 2

    points: tuple[str, ...]
    idle: tuple[str, ...] = ()

    def headline(self) -> str:
        return f"{len(self.points)} points of the sweep are the same recipe"

    def facts(self) -> dict[str, str]:
        found = {"found": listed([one_line(point) for point in self.points])}
        because = "says how a recipe is run, and is no part of what it is"
        return found | ({"because": f"{listed(self.idle)} {because}"} if self.idle else {})

    def fix(self) -> str:
        if self.idle:
            return f"leave {self.idle[0]} out, or type a command for each value, with its own output_dir"
        drop = one_line(self.points[-1]) if self.points else "all but one"
        return f"keep one of them: drop {drop}"


@dataclass(eq=False, kw_only=True)
class HydraRefusedError(RunError):
    """Hydra refuses one of its own settings, or what its sweeper was asked for."""

    slug: ClassVar[str] = "hydra"
    exit_code: ClassVar[int] = 2

    reason: str
    settings: tuple[str, ...]

    def headline(self) -> str:
        return "Hydra refuses the command line"

    def facts(self) -> dict[str, str]:
        found = {"found": listed(self.settings)} if self.settings else {}
        return {**found, "reason": one_line(self.reason.strip(), PATH_LIMIT)}

    def fix(self) -> str:
        return "leave the hydra settings out: tlcompile needs none"


@dataclass(eq=False, kw_only=True)
class NotABundleError(RunError):
    """A folder lacks files that every saved bundle has."""

    slug: ClassVar[str] = "not-a-bundle"
    exit_code: ClassVar[int] = 2

    path: Path
    missing: tuple[str, ...]

    def headline(self) -> str:
        return f"'{shown_path(self.path)}' is not a saved bundle"

    def facts(self) -> dict[str, str]:
        return {"missing": listed(self.missing)}

    def fix(self) -> str:
        return "name the folder of a finished run: runs/<name>"
