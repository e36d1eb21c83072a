"""Phases, groups and rates that cannot be followed as they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.run import RunError


@dataclass(eq=False, kw_only=True)
class FrozenRateError(RunError):
    """A rate is given to layers that never train."""

    slug: ClassVar[str] = "frozen-rate"
    exit_code: ClassVar[int] = 2

    name: str
    phase: str | None

    def headline(self) -> str:
        during = f"in phase '{self.phase}'" if self.phase is not None else "throughout"
        return f"'{self.name}' has settings of its own and is frozen {during}"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"every parameter of '{self.name}' is frozen",
            "wanted": "a group that trains",
        }

    def fix(self) -> str:
        return f"drop the group '{self.name}', or freeze less"


@dataclass(eq=False, kw_only=True)
class NothingMonitoredError(RunError):
    """Something waits for a plateau of a value that no epoch has."""

    slug: ClassVar[str] = "nothing-monitored"
    exit_code: ClassVar[int] = 2

    what: str
    monitor: str

    def headline(self) -> str:
        return f"{self.what} waits for {self.monitor}, and there are no validation images"

    def facts(self) -> dict[str, str]:
        return {"found": "no validation images", "wanted": f"{self.monitor} after each epoch"}

    def fix(self) -> str:
        value = self.monitor.rpartition("/")[2]
        return f"monitor training instead: fine_tune.monitor=train/{value}; or add a val/ folder"
