"""Freeze points cannot be compared: by the task, by the images, or because they have no features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed, one_line
from tlcompile.errors.data import DataError
from tlcompile.errors.graph import GraphError
from tlcompile.errors.run import RunError


@dataclass(eq=False, kw_only=True)
class NoAdviceForTaskError(RunError):
    """What images are to be told apart by is no class and no number of the whole image."""

    slug: ClassVar[str] = "no-advice-for-task"
    exit_code: ClassVar[int] = 2

    task: str

    def headline(self) -> str:
        return f"`advise` cannot compare freeze points for {self.task}"

    def facts(self) -> dict[str, str]:
        wanted = "one output: classification, binary, multilabel or regression"
        return {"found": self.task, "wanted": wanted}

    def fix(self) -> str:
        return "try a few points: tlcompile train RECIPE -m freeze.upto=stage2,stage3,head"


@dataclass(eq=False, kw_only=True)
class TooFewToCompareError(DataError):
    """The training images that are looked at cannot be told apart, or not judged.

    Attributes:
        counts: What there is too little of, with how many: (class, images), (column, values).
        images: That are looked at, at most.
        total: Training images.
        wanted: In words.
    """

    slug: ClassVar[str] = "too-few-to-compare"
    exit_code: ClassVar[int] = 2

    counts: tuple[tuple[str, int], ...]
    images: int
    total: int
    wanted: str

    def headline(self) -> str:
        return "the training images are too few to compare freeze points by"

    def facts(self) -> dict[str, str]:
        found = [f"{one_line(name)} {count:,}" for name, count in self.counts]
        return {"found": listed(found), "wanted": self.wanted}

    def fix(self) -> str:
        if self.total > self.images:
            return f"look at all of them: --images {self.total}"
        return "add images, or leave classes out by data.classes"


@dataclass(eq=False, kw_only=True)
class NoFeaturesAtPointError(GraphError):
    """A freeze point has no features that could be scored."""

    slug: ClassVar[str] = "no-features-at-point"
    exit_code: ClassVar[int] = 2

    point: str
    because: str
    instead: tuple[str, ...]

    def headline(self) -> str:
        return f"freeze point '{one_line(self.point)}' has no features to score"

    def facts(self) -> dict[str, str]:
        return {"found": self.because, "wanted": "a point behind which rows are kept"}

    def fix(self) -> str:
        return f"leave it out; this base has {listed(self.instead)}"
