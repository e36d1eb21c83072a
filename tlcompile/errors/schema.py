"""A recipe reads well and says something the language does not have: keys, values, choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import did_you_mean, listed, nearest, one_line
from tlcompile.errors.recipe import RecipeError

# What other libraries call it
_INFERRED = {"in", "in_features", "in_channels", "input_size", "input_dim", "num_features"}
_SYNONYMS = {
    "out_features": ("out",), "out_channels": ("out",), "units": ("out",), "filters": ("out",),
    "kernel_size": ("kernel",), "rate": ("p", "lr"), "prob": ("p",), "learning_rate": ("lr",),
}  # fmt: skip


@dataclass(eq=False, kw_only=True)
class UnknownKeyError(RecipeError):
    """A key that this section does not have."""

    slug: ClassVar[str] = "unknown-key"

    name: str
    section: str
    known: tuple[str, ...]
    belongs: tuple[str, ...] = ()

    def headline(self) -> str:
        place = f"section '{self.section}'" if self.section else "a recipe"
        return f"{place} has no key '{one_line(self.name)}'"

    def facts(self) -> dict[str, str]:
        near = nearest(self.name, self.known)
        return {"found": f"'{one_line(self.name)}'", "wanted": listed(near or self.known)}

    def fix(self) -> str:
        if self.section.startswith("add.") and self.name in _INFERRED:
            return "delete it: a layer's input width comes from what it reads"
        for ours in _SYNONYMS.get(self.name, ()):
            if ours in self.known:
                return f"write {ours}"
        close = nearest(self.name, self.known)
        if self.belongs and not close:
            return f"write {self.belongs[0]}"
        return did_you_mean(self.name, self.known, f"write one of: {listed(self.known)}")


@dataclass(eq=False, kw_only=True)
class MissingKeyError(RecipeError):
    """A key without which the section means nothing; `example` is a value that it takes."""

    slug: ClassVar[str] = "missing-key"

    name: str
    section: str
    meaning: str
    example: str = ""

    def headline(self) -> str:
        place = f"'{self.section}'" if self.section else "the recipe"
        return f"{place} needs the key '{self.name}'"

    def facts(self) -> dict[str, str]:
        return {"wanted": f"{self.name}: {self.meaning}"}

    def fix(self) -> str:
        if self.example:
            return f"add {self.name}: {self.example}{f' to {self.section}' if self.section else ''}"
        return f"add {f'{self.section}.' if self.section else ''}{self.name}"


@dataclass(eq=False, kw_only=True)
class ChoiceError(RecipeError):
    """A word that is not one of those that a key takes."""

    slug: ClassVar[str] = "bad-choice"

    name: str
    found: str
    choices: tuple[str, ...]

    def headline(self) -> str:
        return f"{self.name} cannot be '{one_line(self.found)}'"

    def facts(self) -> dict[str, str]:
        return {"found": f"'{one_line(self.found)}'", "wanted": listed(self.choices, 20)}

    def fix(self) -> str:
        return did_you_mean(self.found, self.choices, f"write one of: {listed(self.choices)}")


@dataclass(eq=False, kw_only=True)
class BadValueError(RecipeError):
    """A value of the wrong type, or out of range.

    Attributes:
        name: Of the key.
        found: The value.
        wanted: What would do.
        words: Of which one may have been meant.
        meaning: Of the key.
        instead: What could stand there, as it is written; empty: none is known.
    """

    slug: ClassVar[str] = "bad-value"

    name: str
    found: str
    wanted: str
    words: tuple[str, ...] = ()
    meaning: str = ""
    instead: str = ""

    def headline(self) -> str:
        return f"{self.name} cannot be {one_line(self.found)}"

    def facts(self) -> dict[str, str]:
        meaning = {"meaning": self.meaning} if self.meaning else {}
        return {"found": one_line(self.found), "wanted": self.wanted, **meaning}

    def fix(self) -> str:
        if self.instead:
            return f"write {self.name.rpartition('.')[2]}: {self.instead}"
        return did_you_mean(self.found, self.words, f"give {self.name} {self.wanted}")


@dataclass(eq=False, kw_only=True)
class RuleError(RecipeError):
    """Keys that are each right and do not go together."""

    slug: ClassVar[str] = "bad-rule"

    name: str
    rule: str
    advice: str = "mend the one that you did not mean"

    def headline(self) -> str:
        return f"{self.name}: {self.rule}" if self.name else self.rule

    def fix(self) -> str:
        return self.advice
