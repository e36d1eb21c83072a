"""Stored features cannot be written: the run goes on without, or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tlcompile.errors.base import one_line
from tlcompile.errors.run import (
    IO_ERROR,
    PATH_LIMIT,
    DiskFullError,
    NoPermissionError,
    RunError,
    WriteFailedError,
    shown_path,
)

ELSEWHERE = (
    "store features on another disk with run.cache=FOLDER, or do without: features.cache=off"
)


@dataclass(eq=False, kw_only=True)
class CacheFullError(DiskFullError):
    """Features do not fit on the disk of the cache; what was stored before is kept."""

    slug: ClassVar[str] = "cache-full"

    def headline(self) -> str:
        return f"there is no room for features in '{shown_path(self.path)}'"

    def fix(self) -> str:
        return f"free some room with tlcompile cache gc; or {ELSEWHERE}"


@dataclass(eq=False, kw_only=True)
class CacheNotWritableError(RunError):
    """The folder of stored features cannot be written, for a reason other than room."""

    slug: ClassVar[str] = "cache-not-writable"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path
    reason: str

    def headline(self) -> str:
        return f"features cannot be stored in '{shown_path(self.path)}'"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason, PATH_LIMIT)}

    def fix(self) -> str:
        return ELSEWHERE


@dataclass(eq=False, kw_only=True)
class OverBudgetError(RunError):
    """The features of one run alone are larger than the budget of the store."""

    slug: ClassVar[str] = "over-budget"
    exit_code: ClassVar[int] = IO_ERROR

    path: Path
    needed_bytes: int
    budget_bytes: int

    def headline(self) -> str:
        return f"the features of this run are larger than the budget of '{shown_path(self.path)}'"

    def facts(self) -> dict[str, str]:
        return {"needed": f"{self.needed_bytes:,} bytes", "budget": f"{self.budget_bytes:,} bytes"}

    def fix(self) -> str:
        return f"raise the budget: run.cache_budget={-(-self.needed_bytes // 10**9)}GB"


# What can be in the way of storing features; a run goes on without.
STORE_ERRORS = (
    CacheNotWritableError,
    DiskFullError,
    NoPermissionError,
    OverBudgetError,
    WriteFailedError,
)
