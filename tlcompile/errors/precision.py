"""The frozen part cannot be computed as `features.precision` wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import one_line
from tlcompile.errors.run import PATH_LIMIT, RunError


@dataclass(eq=False, kw_only=True)
class NotHardenedError(RunError):
    """A frozen part refuses to run folded or in bf16, or computes something else then."""

    slug: ClassVar[str] = "not-hardened"
    exit_code: ClassVar[int] = 2

    model: str
    precision: str
    reason: str
    wanted: str

    def headline(self) -> str:
        return f"the frozen part of '{one_line(self.model)}' cannot be computed as {self.precision}"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason, PATH_LIMIT), "wanted": self.wanted}

    def fix(self) -> str:
        return "compute it as the model does: features.precision=exact"
