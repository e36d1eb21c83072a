"""What a Python caller gave to a FeatureTrainer does not fit: the caller changes one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tlcompile.errors.base import TLCompileError, listed, one_line
from tlcompile.errors.run import PATH_LIMIT, NotFiniteLossError, shown_path


@dataclass(eq=False, kw_only=True)
class FittingError(TLCompileError):
    """What was given from Python does not fit the model."""

    exit_code: ClassVar[int] = 2


@dataclass(eq=False, kw_only=True)
class WrongArgumentError(FittingError):
    """An argument is of another kind than its function takes."""

    slug: ClassVar[str] = "wrong-argument"

    name: str
    found: str
    wanted: str
    advice: str

    def headline(self) -> str:
        return f"'{self.name}' is not what it has to be"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.found, PATH_LIMIT), "wanted": self.wanted}

    def fix(self) -> str:
        return self.advice


@dataclass(eq=False, kw_only=True)
class NothingFrozenError(FittingError):
    """A model has no part whose outputs could be computed once; `reason` is empty without a freeze."""

    slug: ClassVar[str] = "nothing-frozen"

    reason: str

    def headline(self) -> str:
        return "the model has no frozen part that can be computed once"

    def facts(self) -> dict[str, str]:
        return {"reason": self.reason or "nothing that computes is frozen"}

    def fix(self) -> str:
        return "freeze up to a vertex in the recipe, for example  freeze: head"


@dataclass(eq=False, kw_only=True)
class EmptyLoaderError(FittingError):
    """A loader gave no sample; `once` says that it gives its batches a single time."""

    slug: ClassVar[str] = "empty-loader"

    kind: str
    once: bool

    def headline(self) -> str:
        return f"the loader, a {one_line(self.kind)}, gives no sample"

    def facts(self) -> dict[str, str]:
        once = "it gives its batches once, and may have given them already"
        return {"reason": once} if self.once else {}

    def fix(self) -> str:
        if self.once:
            return "make it anew, or give a list or a DataLoader, which can be read again"
        return "see that it is not empty: next(iter(loader))"


@dataclass(eq=False, kw_only=True)
class WrongBatchError(FittingError):
    """A batch of a loader does not fit the inputs of the model; batches count from 1."""

    slug: ClassVar[str] = "wrong-batch"

    number: int
    found: str
    wanted: str
    advice: str

    def headline(self) -> str:
        return f"batch {self.number} of the loader does not fit the model"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.found, PATH_LIMIT), "wanted": self.wanted}

    def fix(self) -> str:
        return self.advice


@dataclass(eq=False, kw_only=True)
class WrongLabelsError(FittingError):
    """Labels are not what a loss reads; `task` is None for a loss of the caller's own."""

    slug: ClassVar[str] = "wrong-labels"

    task: str | None
    found: str
    wanted: str

    def headline(self) -> str:
        loss = "your loss" if self.task is None else f"loss='{self.task}'"
        return f"the labels do not fit {loss}"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.found, PATH_LIMIT), "wanted": self.wanted}

    def fix(self) -> str:
        return "give labels of that kind, or a loss of your own: loss=lambda outputs, labels: ..."


@dataclass(eq=False, kw_only=True)
class WrongFeaturesError(FittingError):
    """Features were made by another frozen part, or in another way, than the one they are given to."""

    slug: ClassVar[str] = "stale-features"

    differences: tuple[str, ...]

    def headline(self) -> str:
        return "these features were made by another frozen part, or in another way"

    def facts(self) -> dict[str, str]:
        return {"differs": listed(self.differences)}

    def fix(self) -> str:
        return "extract them anew: features = trainer.extract(loader)"


@dataclass(eq=False, kw_only=True)
class NotFeaturesError(FittingError):
    """A folder holds no features that were saved."""

    slug: ClassVar[str] = "not-features"

    path: Path
    found: str

    def headline(self) -> str:
        return f"'{shown_path(self.path)}' holds no saved features"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.found, PATH_LIMIT)}

    def fix(self) -> str:
        return "name a folder that features.save(folder) wrote"


@dataclass(eq=False, kw_only=True)
class NotFiniteFitError(NotFiniteLossError):
    """The loss of a fit from Python became NaN or infinite."""

    slug: ClassVar[str] = "not-finite-fit"

    def facts(self) -> dict[str, str]:
        kept = {"kept": "the parameters, as they were before this step"}
        return {**super().facts(), **kept}

    def fix(self) -> str:
        if self.what == "feature":
            return "look at what these samples were made of, and extract their features anew"
        return super().fix()

    def _slower(self) -> str:
        return f"fit(..., lr={self.lr / 10:g})"
