"""A sweep cannot go where it was sent: an engine, a launcher or a sweeper of Hydra's, or a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed, one_line
from tlcompile.errors.resume import again_after
from tlcompile.errors.run import PATH_LIMIT, RunError


@dataclass(eq=False, kw_only=True)
class MissingPluginError(RunError):
    """A launcher or a sweeper of Hydra's is not installed.

    Attributes:
        kind: launcher or sweeper.
        name: Hydra's.
        known: Those that are installed.
        package: What to install; "" where only its author knows.
    """

    slug: ClassVar[str] = "missing-plugin"
    exit_code: ClassVar[int] = 2

    kind: str
    name: str
    known: tuple[str, ...]
    package: str

    def headline(self) -> str:
        return f"Hydra's {self.kind} '{one_line(self.name)}' is not installed"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.known)}

    def fix(self) -> str:
        return f"pip install {one_line(self.package) or 'its package, or name one of these'}"


@dataclass(eq=False, kw_only=True)
class OtherLauncherError(RunError):
    """The recipe names one engine, and the command line another launcher of Hydra's."""

    slug: ClassVar[str] = "other-launcher"
    exit_code: ClassVar[int] = 2

    engine: str
    launcher: str

    def headline(self) -> str:
        launcher = one_line(self.launcher)
        return f"sweep.engine is {one_line(self.engine)}, and hydra/launcher is {launcher}"

    def fix(self) -> str:
        return "drop one of them: sweep.engine=joblib and hydra/launcher=joblib are the same"


@dataclass(eq=False, kw_only=True)
class IdleLauncherSettingsError(RunError):
    """Settings of a launcher, and no launcher that would read them."""

    slug: ClassVar[str] = "idle-launcher-settings"
    exit_code: ClassVar[int] = 2

    settings: tuple[str, ...]
    multirun: bool

    def headline(self) -> str:
        return f"{listed([one_line(one) for one in self.settings])} would have no effect"

    def facts(self) -> dict[str, str]:
        found = "sweep.engine: in_process" if self.multirun else "one run, without -m"
        return {"found": found, "wanted": "a sweep that a launcher of Hydra's runs"}

    def fix(self) -> str:
        return (
            "add sweep.engine=joblib (or submitit, ray)" if self.multirun else "add -m, or drop it"
        )


@dataclass(eq=False, kw_only=True)
class LauncherFailedError(RunError):
    """A launcher of Hydra's could not start: no point has run."""

    slug: ClassVar[str] = "launcher-failed"

    launcher: str
    reason: str

    def headline(self) -> str:
        return f"Hydra's launcher '{one_line(self.launcher)}' failed"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason, PATH_LIMIT), "kept": "the points that are finished"}

    def fix(self) -> str:
        return "mend what it says, or drop sweep.engine: this process runs the points, too"


@dataclass(eq=False, kw_only=True)
class PointLostError(RunError):
    """The process of a point ended without a word."""

    slug: ClassVar[str] = "point-lost"

    how: str

    def headline(self) -> str:
        return f"the point's process {self.how}"

    def facts(self) -> dict[str, str]:
        return {"kept": "its last checkpoint, and all other points"}

    def fix(self) -> str:
        return again_after(self.how)


@dataclass(eq=False, kw_only=True)
class WrongDirectionError(RunError):
    """A sweeper would look for the worst value.

    Attributes:
        monitor: The value that a point returns.
        higher: Whether higher is better.
        setting: The sweeper's own, and what it is.
        wanted: The sweeper's own, and what it has to be.
    """

    slug: ClassVar[str] = "wrong-direction"
    exit_code: ClassVar[int] = 2

    monitor: str
    higher: bool
    setting: str
    wanted: str

    def headline(self) -> str:
        return f"the sweeper would look for the worst {one_line(self.monitor)}"

    def facts(self) -> dict[str, str]:
        better = "higher" if self.higher else "lower"
        wanted = f"{one_line(self.monitor)}: {better} is better"
        return {"found": one_line(self.setting), "wanted": wanted}

    def fix(self) -> str:
        return f"add {one_line(self.wanted)}"
