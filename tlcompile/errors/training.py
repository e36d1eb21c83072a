"""Training broke a promise: something frozen moved, or something trainable cannot learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed
from tlcompile.errors.run import RunError


@dataclass(eq=False, kw_only=True)
class FrozenMovedError(RunError):
    """A frozen tensor is not what it was."""

    slug: ClassVar[str] = "frozen-moved"

    names: tuple[str, ...]
    total: int

    def headline(self) -> str:
        return f"{len(self.names)} of {self.total} frozen tensors changed while training"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.names), "wanted": "every frozen tensor byte-identical"}

    def fix(self) -> str:
        return "this is a bug in tlcompile: report it with the recipe"


@dataclass(eq=False, kw_only=True)
class NoGradientError(RunError):
    """A trainable parameter never had a finite gradient."""

    slug: ClassVar[str] = "no-gradient"

    names: tuple[str, ...]
    total: int

    def headline(self) -> str:
        return f"{len(self.names)} of {self.total} trainable tensors never had a finite gradient"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.names), "wanted": "every trainable tensor reached by the loss"}

    def fix(self) -> str:
        return "freeze them, or let an output read them"


@dataclass(eq=False, kw_only=True)
class AugmentedFrozenError(RunError):
    """Random augmentation in front of features that are computed once."""

    slug: ClassVar[str] = "augmented-features"
    exit_code: ClassVar[int] = 2

    names: tuple[str, ...]
    boundary: tuple[str, ...]

    def headline(self) -> str:
        return "random augmentation stands before a frozen part that is computed once"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"augment.train: {listed(self.names)}; features of {listed(self.boundary)}",
            "wanted": "a fixed number of augmented views an image, or no cache",
        }

    def fix(self) -> str:
        return "write features: {views: 5}, or features: {cache: off}, which computes every epoch"


@dataclass(eq=False, kw_only=True)
class WrongClassCountError(RunError):
    """The data has more or fewer classes than the task or the model's outputs."""

    slug: ClassVar[str] = "wrong-class-count"
    exit_code: ClassVar[int] = 2

    task: str
    wanted: int
    found: tuple[str, ...]

    def headline(self) -> str:
        return f"task {self.task} wants {self.wanted} classes, the data has {len(self.found)}"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.found), "wanted": f"{self.wanted} classes"}

    def fix(self) -> str:
        return "write task: classification with head: auto, or name the classes: data.classes"


@dataclass(eq=False, kw_only=True)
class GoldenMismatchError(RunError):
    """A loaded model does not compute what the saved one computed."""

    slug: ClassVar[str] = "golden-mismatch"

    path: str
    difference: float
    tolerance: float

    def headline(self) -> str:
        return f"the model of '{self.path}' does not give the outputs that it was saved with"

    def facts(self) -> dict[str, str]:
        return {"found": f"difference {self.difference:.2g}", "wanted": f"<= {self.tolerance:.2g}"}

    def fix(self) -> str:
        return "load it with the versions in its record.json"
