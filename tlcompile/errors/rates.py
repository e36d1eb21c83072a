"""Phases, groups and rates that cannot be followed as they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed
from tlcompile.errors.run import RunError


@dataclass(eq=False, kw_only=True)
class OptimizerStateError(RunError):
    """Saved state of an optimizer does not fit the parameters that learn now."""

    slug: ClassVar[str] = "optimizer-state"

    missing: tuple[str, ...]
    left_over: tuple[str, ...]

    def headline(self) -> str:
        return "the saved state of the optimizer is not that of what trains now"

    def facts(self) -> dict[str, str]:
        facts = {"wanted": "the state of every parameter that trains, and no other"}
        if self.missing:
            facts["missing"] = f"of {len(self.missing)} tensors: {listed(self.missing)}"
        if self.left_over:
            facts["left over"] = f"of {len(self.left_over)} tensors: {listed(self.left_over)}"
        return facts

    def fix(self) -> str:
        return "resume with the recipe that saved it, or start anew: tlcompile train RECIPE --again"
