"""A finished run cannot be used again: as the base of a recipe, or as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tlcompile.errors.base import listed, one_line
from tlcompile.errors.run import RunError, quoted_path, shown_path


@dataclass(eq=False, kw_only=True)
class UnfinishedRunError(RunError):
    """A run began and has not saved its model."""

    slug: ClassVar[str] = "unfinished-run"
    exit_code: ClassVar[int] = 2

    path: Path

    def headline(self) -> str:
        return f"the run '{shown_path(self.path)}' is not finished"

    def facts(self) -> dict[str, str]:
        return {"found": "no bundle/ with its best weights", "wanted": "a finished run"}

    def fix(self) -> str:
        return f"finish it: tlcompile train {quoted_path(self.path / 'recipe.yaml')}"


@dataclass(eq=False, kw_only=True)
class OwnModuleRunError(RunError):
    """A run was trained on a user's own module, whose code no bundle holds."""

    slug: ClassVar[str] = "own-module"
    exit_code: ClassVar[int] = 2

    run: str
    module: str

    def headline(self) -> str:
        return f"the run '{one_line(self.run, 400)}' was trained on your own module"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"class {one_line(self.module)}, whose code a run does not hold",
            "wanted": "the module itself, from Python",
        }

    def fix(self) -> str:
        return (
            f"from Python: tlcompile.load_bundle({self.run!r}, base={self.module}()), or pass base= "
            "to tlcompile.train or compile_recipe"
        )


@dataclass(eq=False, kw_only=True)
class OtherClassesError(RunError):
    """The data have other classes than the classifier that is kept from a run."""

    slug: ClassVar[str] = "other-classes"
    exit_code: ClassVar[int] = 2

    run: str
    wanted: tuple[str, ...]
    found: tuple[str, ...]

    def headline(self) -> str:
        return f"the classifier of '{one_line(self.run, 400)}' is kept and knows other classes"

    def facts(self) -> dict[str, str]:
        names = {"found": self.found, "wanted": self.wanted}
        return {word: listed([one_line(name) for name in found]) for word, found in names.items()}

    def fix(self) -> str:
        return "write head: auto, which puts a new classifier there, or give the run's own classes"


@dataclass(eq=False, kw_only=True)
class OwnBaseError(RunError):
    """A run would be written over the run that it starts from."""

    slug: ClassVar[str] = "own-base"
    exit_code: ClassVar[int] = 2

    path: Path

    def headline(self) -> str:
        return f"the run would be written over its own base '{shown_path(self.path)}'"

    def facts(self) -> dict[str, str]:
        return {"wanted": "another folder than the base's"}

    def fix(self) -> str:
        return "leave folder= out: the run's own folder is beside it"
