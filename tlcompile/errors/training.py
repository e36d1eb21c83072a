"""Training broke a promise: something frozen moved, or something trainable cannot learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import did_you_mean, listed, one_line
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
class NotOneGroupError(RunError):
    """A trainable parameter is not in exactly one group of the optimizer.

    Attributes:
        absent: In no group: they would never move.
        twice: In several: they would move twice a step.
        frozen: In a group although they are frozen.
        total: Trainable parameters.
    """

    slug: ClassVar[str] = "not-one-group"

    absent: tuple[str, ...]
    twice: tuple[str, ...]
    frozen: tuple[str, ...]
    total: int

    def headline(self) -> str:
        return f"the optimizer's groups do not fit the {self.total} trainable tensors"

    def facts(self) -> dict[str, str]:
        names = {"in none": self.absent, "in several": self.twice, "frozen": self.frozen}
        found = {what: listed(some) for what, some in names.items() if some}
        return {**found, "wanted": "every trainable tensor in exactly one group"}

    def fix(self) -> str:
        return "this is a bug in tlcompile: report it with the recipe"


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
    """The data has more or fewer classes than the task can tell apart."""

    slug: ClassVar[str] = "wrong-class-count"
    exit_code: ClassVar[int] = 2

    task: str
    found: tuple[str, ...]

    def headline(self) -> str:
        return f"task {self.task} wants {self._wanted()}, the data has {len(self.found)}"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.found), "wanted": self._wanted()}

    def fix(self) -> str:
        if len(self.found) < 2:
            return "add images of another class"
        return "write task: classification with head: auto, or name the classes: data.classes"

    def _wanted(self) -> str:
        return "2 classes" if self.task == "binary" else "2 classes or more"


@dataclass(eq=False, kw_only=True)
class ExtraNotInstalledError(RunError):
    """A package is wanted that only an extra installs."""

    slug: ClassVar[str] = "extra-not-installed"
    exit_code: ClassVar[int] = 2

    package: str
    extra: str
    wanted_by: str

    def headline(self) -> str:
        return (
            f"{one_line(self.wanted_by)} needs the package '{self.package}', which is not installed"
        )

    def facts(self) -> dict[str, str]:
        return {"wanted": f"the extra '{self.extra}'"}

    def fix(self) -> str:
        return f"pip install 'tlcompile[{self.extra}]'"


@dataclass(eq=False, kw_only=True)
class WrongTaskError(RunError):
    """A base for masks is to learn something else."""

    slug: ClassVar[str] = "wrong-task"
    exit_code: ClassVar[int] = 2

    model: str
    task: str

    def headline(self) -> str:
        return f"'{self.model}' returns a class for each pixel"

    def facts(self) -> dict[str, str]:
        return {"found": f"task: {self.task}", "wanted": "task: segmentation, and masks"}

    def fix(self) -> str:
        return "write task: segmentation, or train a classification model"


@dataclass(eq=False, kw_only=True)
class UnlabelledPlaceError(RunError):
    """A folder of images cannot say what the model predicts."""

    slug: ClassVar[str] = "unlabelled-place"
    exit_code: ClassVar[int] = 2

    path: str
    task: str

    def headline(self) -> str:
        return f"the folder '{one_line(self.path)}' does not say what task {self.task} predicts"

    def facts(self) -> dict[str, str]:
        return {"found": "a folder", "wanted": "a CSV with the columns that the run was trained on"}

    def fix(self) -> str:
        return "give the CSV: tlcompile evaluate RUN images.csv"


@dataclass(eq=False, kw_only=True)
class OtherOutputsError(RunError):
    """The task is about other outputs than the model has."""

    slug: ClassVar[str] = "other-outputs"
    exit_code: ClassVar[int] = 2

    wanted: tuple[str, ...]
    found: tuple[str, ...]

    def headline(self) -> str:
        return "the task is about other outputs than the model returns"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.found), "wanted": listed(self.wanted)}

    def fix(self) -> str:
        return f"write outputs: [{', '.join(self.wanted)}]"


@dataclass(eq=False, kw_only=True)
class UnknownMetricError(RunError):
    """The value to watch is none that the task logs."""

    slug: ClassVar[str] = "unknown-metric"
    exit_code: ClassVar[int] = 2

    name: str
    known: tuple[str, ...]
    judged: bool = True

    def headline(self) -> str:
        why = "" if self.judged else ": there are no validation images"
        return f"this run does not log '{self.name}'{why}"

    def facts(self) -> dict[str, str]:
        return {"found": self.name, "wanted": ", ".join(self.known)}

    def fix(self) -> str:
        return did_you_mean(self.name, self.known, f"write monitor: {self.known[0]}")


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
