"""A random change of images does not fit them, or what they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed, one_line
from tlcompile.errors.data import DataError, shown
from tlcompile.errors.run import RunError


@dataclass(eq=False, kw_only=True)
class ImpossibleChangeError(DataError):
    """torchvision cannot do a change to an image, nearly always because it is too small."""

    slug: ClassVar[str] = "impossible-change"

    name: str
    size: str
    reason: str
    path: str = ""  # of the image, once it is known

    def headline(self) -> str:
        image = f"image '{shown(self.path)}'" if self.path else "an image"
        return f"'{self.name}' cannot be done to {image}"

    def facts(self) -> dict[str, str]:
        return {"found": self.size, "wanted": one_line(self.reason, 200)}

    def fix(self) -> str:
        return f"drop {self.name} from data.augment, or give it smaller numbers"


@dataclass(eq=False, kw_only=True)
class UnknownMaskError(RunError):
    """A change that moves pixels and does not say where to, so that a mask cannot follow."""

    slug: ClassVar[str] = "unknown-mask"
    exit_code: ClassVar[int] = 2

    name: str

    def headline(self) -> str:
        return f"'{self.name}' moves the pixels of an image, and its mask cannot follow"

    def facts(self) -> dict[str, str]:
        return {"wanted": "changes that torchvision defines for masks too"}

    def fix(self) -> str:
        return "write affine and color_jitter instead: [{affine: {degrees: 15}}, color_jitter]"


@dataclass(eq=False, kw_only=True)
class UnmixableError(RunError):
    """Targets of a task that a way of mixing has no meaning for."""

    slug: ClassVar[str] = "unmixable"
    exit_code: ClassVar[int] = 2

    name: str
    task: str
    because: str
    instead: str

    def headline(self) -> str:
        return f"{self.name} has no meaning for task {self.task}"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.name}, task: {self.task}", "wanted": self.because}

    def fix(self) -> str:
        return self.instead


@dataclass(eq=False, kw_only=True)
class MixedFrozenError(RunError):
    """Images are to be mixed in front of features that are computed once."""

    slug: ClassVar[str] = "mixed-features"
    exit_code: ClassVar[int] = 2

    names: tuple[str, ...]
    boundary: tuple[str, ...]
    alpha: float

    def headline(self) -> str:
        return (
            "images are mixed anew in every batch, in front of a frozen part that is computed once"
        )

    def facts(self) -> dict[str, str]:
        return {
            "found": f"data.mix: {listed(self.names)}; features of {listed(self.boundary)}",
            "wanted": "features that are mixed instead, or no cache",
        }

    def fix(self) -> str:
        return (
            f"write features: {{augment: {{mixup: {self.alpha:g}}}}} instead of data.mix, "
            "or features: {cache: off}, which computes every epoch"
        )
