"""A CSV of images, or the masks beside them, are not as promised; each cell has its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import did_you_mean, listed, one_line
from tlcompile.errors.data import DataError, quoted, shown


@dataclass(eq=False, kw_only=True)
class UnreadableTableError(DataError):
    """A CSV cannot be read as a table at all."""

    slug: ClassVar[str] = "unreadable-table"

    path: str
    reason: str
    wanted: str
    advice: str

    def headline(self) -> str:
        return f"'{shown(self.path)}' cannot be read as a table"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.reason), "wanted": self.wanted}

    def fix(self) -> str:
        return self.advice


@dataclass(eq=False, kw_only=True)
class MissingColumnError(DataError):
    """A column that the recipe names, or expects, is not in the table's header."""

    slug: ClassVar[str] = "missing-column"

    table: str
    name: str
    columns: tuple[str, ...]
    option: str  # the recipe's key that names the column

    def headline(self) -> str:
        return f"'{shown(self.table)}' has no column '{one_line(self.name)}'"

    def facts(self) -> dict[str, str]:
        found = listed([f"'{one_line(name)}'" for name in self.columns])
        return {"found": found, "wanted": f"a first line with the columns' names ({self.option})"}

    def fix(self) -> str:
        if len(self.columns) == 1 and any(mark in self.columns[0] for mark in ";\t"):
            return "separate the columns by commas: this table has one column alone"
        if self.option == "data.split.column":
            otherwise = "drop data.split.column: a share of the rows is drawn for val then"
            return did_you_mean(self.name, self.columns, otherwise)
        # The first is most often the one of images, whatever it is called.
        named = self.columns[-1 if self.option != "data.image" else 0] if self.columns else "NAME"
        otherwise = f"name the column: {self.option}: {one_line(named)}"
        return did_you_mean(self.name, self.columns, otherwise)


@dataclass(eq=False, kw_only=True)
class BadCellError(DataError):
    """A cell of a table says nothing, or what it cannot say."""

    slug: ClassVar[str] = "bad-cell"

    column: str
    problem: str
    found: str
    wanted: str
    advice: str

    def headline(self) -> str:
        return f"column '{one_line(self.column)}': {self.problem}"

    def facts(self) -> dict[str, str]:
        return {"found": one_line(self.found, 400), "wanted": self.wanted}

    def fix(self) -> str:
        return self.advice


@dataclass(eq=False, kw_only=True)
class ManyBadCellsError(DataError):
    """More cells are wrong than are worth a screen."""

    slug: ClassVar[str] = "many-bad-cells"

    path: str
    shown_first: int
    count: int

    def headline(self) -> str:
        return f"{self.count:,} places in '{shown(self.path)}' are wrong"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.count:,}; the first {self.shown_first} are listed"}

    def fix(self) -> str:
        return "mend those that are listed; the others are often of one kind"


@dataclass(eq=False, kw_only=True)
class MissingMaskError(DataError):
    """Images without a mask, or masks without an image."""

    slug: ClassVar[str] = "missing-mask"

    folder: str
    images: tuple[str, ...]  # without a mask
    masks: tuple[str, ...]  # without an image

    def headline(self) -> str:
        count, folder = len(self.images or self.masks), shown(self.folder)
        if self.images:
            whose = "1 image has" if count == 1 else f"{count} images have"
            return f"{whose} no mask in '{folder}'"
        return (
            f"1 mask in '{folder}' has no image"
            if count == 1
            else (f"{count} masks in '{folder}' have no image")
        )

    def facts(self) -> dict[str, str]:
        found = [shown(path) for path in self.images or self.masks]
        return {"found": listed(found), "wanted": "images/<name>.jpg with masks/<name>.png"}

    def fix(self) -> str:
        if self.images:
            return "add the masks, as PNG files of the same name, or take these images away"
        mask = self.masks[0]
        aside = f"mv {quoted(mask)} {quoted(mask + '.aside')}"
        return f"add the image, or put the mask aside:\n{aside}"


@dataclass(eq=False, kw_only=True)
class BadMaskError(DataError):
    """Masks that are no map of class indices; all of them at once, as (path, reason)."""

    slug: ClassVar[str] = "bad-mask"

    masks: tuple[tuple[str, str], ...]
    classes: int | None = None

    def headline(self) -> str:
        if len(self.masks) == 1:
            return f"mask '{shown(self.masks[0][0])}' is no map of classes"
        return f"{len(self.masks)} masks are no maps of classes"

    def facts(self) -> dict[str, str]:
        lines = [f"{shown(path)}: {one_line(reason)}" for path, reason in self.masks[:8]]
        if len(self.masks) > len(lines):
            lines.append(f"... ({len(self.masks)} in all)")
        values = "a class of each pixel" if self.classes is None else f"0 to {self.classes - 1}"
        return {"found": "\n".join(lines), "wanted": f"grey or palette PNG: {values}; 255: ignored"}

    def fix(self) -> str:
        if self.classes is None:
            return "save the masks as 8-bit grey or palette PNG whose values are the classes"
        return "name all classes, in the order of their values: data.classes or classes.txt"
