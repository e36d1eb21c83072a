"""A run, or what to predict on, cannot be found by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import did_you_mean, listed, one_line
from tlcompile.errors.run import RunError


@dataclass(eq=False, kw_only=True)
class UnknownRunError(RunError):
    """No run has this name."""

    slug: ClassVar[str] = "unknown-run"
    exit_code: ClassVar[int] = 2

    name: str
    runs: tuple[str, ...]

    def headline(self) -> str:
        return f"there is no run '{one_line(self.name)}'"

    def facts(self) -> dict[str, str]:
        return {"wanted": f"a run's folder: {listed(self.runs) or 'none here'}"}

    def fix(self) -> str:
        return did_you_mean(self.name, self.runs, "train first, or name the folder of a run")


@dataclass(eq=False, kw_only=True)
class AmbiguousRunError(RunError):
    """Several runs begin with this name."""

    slug: ClassVar[str] = "ambiguous-run"
    exit_code: ClassVar[int] = 2

    name: str
    runs: tuple[str, ...]

    def headline(self) -> str:
        return f"{len(self.runs)} runs begin with '{one_line(self.name)}'"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.runs)}

    def fix(self) -> str:
        return f"write {self.runs[-1] if self.runs else 'one of them'}"


@dataclass(eq=False, kw_only=True)
class MissingImageError(RunError):
    """What to predict on is neither a file nor a folder."""

    slug: ClassVar[str] = "missing-image"
    exit_code: ClassVar[int] = 2

    path: str
    near: tuple[str, ...]

    def headline(self) -> str:
        return f"there is no file or folder '{one_line(self.path, 400)}'"

    def fix(self) -> str:
        return did_you_mean(self.path, self.near, "name images, or folders of images")


@dataclass(eq=False, kw_only=True)
class NothingToPredictError(RunError):
    """A folder to predict on has no image, at any depth."""

    slug: ClassVar[str] = "nothing-to-predict"
    exit_code: ClassVar[int] = 2

    path: str

    def headline(self) -> str:
        return f"folder '{one_line(self.path, 400)}' has no image"

    def facts(self) -> dict[str, str]:
        return {"wanted": "at least one .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff or .gif file"}

    def fix(self) -> str:
        return "name an image, or a folder with images"


@dataclass(eq=False, kw_only=True)
class FileExistsAlreadyError(RunError):
    """A file would be overwritten."""

    slug: ClassVar[str] = "file-exists"
    exit_code: ClassVar[int] = 2

    path: str
    flag: str = "--out"

    def headline(self) -> str:
        return f"'{self.path}' exists already"

    def facts(self) -> dict[str, str]:
        return {"kept": "nothing was overwritten"}

    def fix(self) -> str:
        return f"name another place with {self.flag}"
