"""An edit does not fit: freeze, remove, resize, add, outputs, and the classifier."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed
from tlcompile.errors.graph import GraphError


@dataclass(eq=False, kw_only=True)
class FrozenEditError(GraphError):
    """A vertex is frozen and edited by one recipe: random and frozen, or frozen and gone."""

    slug: ClassVar[str] = "frozen-edit"

    name: str
    edit: str
    inside: str
    instead: tuple[str, ...]
    alone: bool = False

    def headline(self) -> str:
        return f"'{self.name}' is {self.edit} by this recipe and lies in the frozen part"

    def facts(self) -> dict[str, str]:
        upto = f"freeze up to {self.inside} (inclusive, with all that it reads)"
        return {
            "found": f"'{self.name}' under freeze.only" if self.alone else upto,
            "wanted": "only vertices that keep their pretrained weights can be frozen",
        }

    def fix(self) -> str:
        if self.alone:
            return f"take '{self.name}' out of freeze.only, or do not edit it"
        if not self.instead:
            return "write freeze: none"
        return f"freeze up to {listed([repr(name) for name in self.instead])}"


@dataclass(eq=False, kw_only=True)
class NoEffectError(GraphError):
    """A line of the recipe changes nothing, which is never what its author meant."""

    slug: ClassVar[str] = "no-effect"

    line: str
    because: str
    instead: str

    def headline(self) -> str:
        return f"{self.line} has no effect"

    def facts(self) -> dict[str, str]:
        return {"found": self.because, "wanted": "every line of a recipe changes something"}

    def fix(self) -> str:
        return self.instead


@dataclass(eq=False, kw_only=True)
class DanglingError(GraphError):
    """A kept vertex reads a vertex that the recipe removes."""

    slug: ClassVar[str] = "dangling-reader"

    removed: str
    readers: tuple[str, ...]
    line: str = ""
    reader_is_added: bool = False
    unread: str = "VERTEX"

    def headline(self) -> str:
        return f"'{self.removed}' is removed, and {listed([repr(r) for r in self.readers])} still reads it"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"{len(self.readers)} kept reader(s)",
            "wanted": "no reader, or a stand-in",
        }

    def fix(self) -> str:
        if self.reader_is_added:
            return f"name a vertex that stays under the inputs of '{self.readers[0]}'"
        line = self.line or self.removed
        return (
            f"name what the model returns instead, outputs: [{self.unread}], if the reader is to go "
            "too; "
            f"else write remove: {{{line}: replace}} and add a '{line}'"
        )


@dataclass(eq=False, kw_only=True)
class NotReplacedError(GraphError):
    """`remove: replace` promises a vertex of the same name under `add`."""

    slug: ClassVar[str] = "not-replaced"

    name: str
    added: tuple[str, ...]

    def headline(self) -> str:
        return f"'{self.name}' is to be replaced, and nothing of that name is added"

    def facts(self) -> dict[str, str]:
        return {"found": f"add: {listed(self.added) or 'nothing'}", "wanted": f"add: '{self.name}'"}

    def fix(self) -> str:
        return f"add {{{self.name}: {{layer: …}}}}, or write remove: {{{self.name}: drop}}"


@dataclass(eq=False, kw_only=True)
class CannotBypassError(GraphError):
    """`bypass` needs one entering and one leaving tensor."""

    slug: ClassVar[str] = "cannot-bypass"

    name: str
    entering: tuple[str, ...]
    leaving: tuple[str, ...]

    def headline(self) -> str:
        return f"'{self.name}' cannot be bypassed"

    def facts(self) -> dict[str, str]:
        return {
            "entering": listed(self.entering) or "nothing",
            "leaving": listed(self.leaving) or "nothing",
            "wanted": "exactly one tensor that enters and one that leaves",
        }

    def fix(self) -> str:
        return f"write remove: {{{self.name}: replace}} and add what its readers take instead"


@dataclass(eq=False, kw_only=True)
class NameTakenError(GraphError):
    """An added layer has the name of a vertex that stays, or lies inside another added one."""

    slug: ClassVar[str] = "name-taken"

    name: str
    added: str = ""
    user: str = ""

    def headline(self) -> str:
        if self.user:
            return f"'{self.user}', which stays, uses the weights of '{self.name}'"
        if self.added:
            return f"the recipe adds both '{self.name}' and '{self.added}', one inside the other"
        return f"the base model keeps a vertex '{self.name}'"

    def facts(self) -> dict[str, str]:
        return {
            "found": "two vertices of one name",
            "wanted": "a new name, or the old one replaced",
        }

    def fix(self) -> str:
        if self.added:
            return f"call it '{self.name.replace('.', '_')}_new'"
        if self.user:
            return f"give the added layer another name, or remove '{self.user}', too"
        return f"write remove: {{{self.name}: replace}}, or give the added layer another name"


@dataclass(eq=False, kw_only=True)
class CycleError(GraphError):
    """Added layers read each other in a circle, or one feeds what it reads."""

    slug: ClassVar[str] = "cycle"

    names: tuple[str, ...]
    feeder: str = ""

    def headline(self) -> str:
        who = "vertices" if self.feeder else "added layers"
        return f"{who} read each other in a circle: {' -> '.join(self.names)}"

    def facts(self) -> dict[str, str]:
        return {"wanted": "each layer reads vertices that come before it"}

    def fix(self) -> str:
        if self.feeder:
            return f"let '{self.feeder}' feed a vertex that comes behind all that it reads"
        return f"let '{self.names[0]}' read a vertex of the base model"


@dataclass(eq=False, kw_only=True)
class ShapeError(GraphError):
    """A vertex cannot take the shapes that reach it."""

    slug: ClassVar[str] = "shape-mismatch"

    name: str
    kind: str
    found: tuple[str, ...]
    wanted: str
    advice: str

    def headline(self) -> str:
        return f"'{self.name}' ({self.kind}) cannot take what reaches it"

    def facts(self) -> dict[str, str]:
        return {"found": "; ".join(self.found), "wanted": self.wanted}

    def fix(self) -> str:
        return self.advice


@dataclass(eq=False, kw_only=True)
class WrongInputsError(GraphError):
    """An added layer has too many or too few inputs."""

    slug: ClassVar[str] = "wrong-inputs"

    name: str
    kind: str
    found: tuple[str, ...]
    wanted: str

    def headline(self) -> str:
        count = len(self.found)
        return f"'{self.name}' ({self.kind}) has {count} input{'' if count == 1 else 's'}"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.found) or "none", "wanted": self.wanted}

    def fix(self) -> str:
        return f"write add: {{{self.name}: {{inputs: …}}}} with {self.wanted}"


@dataclass(eq=False, kw_only=True)
class BadNameError(GraphError):
    """A name that a layer cannot have."""

    slug: ClassVar[str] = "bad-name"

    name: str
    reason: str

    def headline(self) -> str:
        return f"an added layer cannot be called '{self.name}'"

    def facts(self) -> dict[str, str]:
        return {
            "found": self.reason,
            "wanted": "letters, digits and _, parts joined by dots, no word of Python or torch.nn",
        }

    def fix(self) -> str:
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", self.name).strip("_")
        return f"call it '{plain if plain[:1].isalpha() else f'layer{plain}'}_new'"


@dataclass(eq=False, kw_only=True)
class HeadError(GraphError):
    """The classifier cannot be found or replaced by itself."""

    slug: ClassVar[str] = "head"

    model: str
    reason: str

    def headline(self) -> str:
        return f"the classifier of '{self.model}' cannot be replaced by itself"

    def facts(self) -> dict[str, str]:
        return {"found": self.reason, "wanted": "one linear or 1x1 convolution before the output"}

    def fix(self) -> str:
        return "write head: keep, and remove, add and outputs yourself"


@dataclass(eq=False, kw_only=True)
class WrongWidthError(GraphError):
    """The outputs are not as wide as the task needs."""

    slug: ClassVar[str] = "wrong-width"

    name: str
    found: str
    wanted: str
    task: str
    wide: int | None = None  # where `out: classes` does not say it

    def headline(self) -> str:
        return f"output '{self.name}' has not the width that the task needs"

    def facts(self) -> dict[str, str]:
        return {"found": self.found, "wanted": f"{self.wanted}, for task {self.task}"}

    def fix(self) -> str:
        if self.task == "segmentation":
            map_of_ours = "or add conv2d and upsample, as docs/data.md shows under Masks"
            return f"write base: {{model: lraspp_mobilenet_v3_large}} alone, {map_of_ours}"
        if self.wide:
            return f"write out: {self.wide} on that layer"
        return "write out: classes on that layer, or head: auto"


@dataclass(eq=False, kw_only=True)
class ClassesUnknownError(GraphError):
    """A layer is as wide as there are classes, and nobody says how many there are."""

    slug: ClassVar[str] = "classes-unknown"

    name: str

    def headline(self) -> str:
        return f"'{self.name}' needs the number of classes, which is not known"

    def facts(self) -> dict[str, str]:
        return {"wanted": "data.classes, a named data set, or a number from the caller"}

    def fix(self) -> str:
        return "write compile_recipe(recipe, num_classes=N)"


@dataclass(eq=False, kw_only=True)
class ClassCountError(GraphError):
    """A number of classes that no data can have."""

    slug: ClassVar[str] = "class-count"

    found: int

    def headline(self) -> str:
        return f"the number of classes cannot be {self.found}"

    def facts(self) -> dict[str, str]:
        return {"found": str(self.found), "wanted": "at least 1"}

    def fix(self) -> str:
        return (
            "give as many as the data have: --classes N, or compile_recipe(recipe, num_classes=N)"
        )


@dataclass(eq=False, kw_only=True)
class OutputActivationError(GraphError):
    """Outputs are logits; the task applies softmax or sigmoid itself."""

    slug: ClassVar[str] = "output-activation"

    name: str
    activation: str
    task: str
    before: str = ""
    added: bool = True

    def headline(self) -> str:
        return f"output '{self.name}' ends in {self.activation}"

    def facts(self) -> dict[str, str]:
        return {"found": self.activation, "wanted": f"logits: task {self.task} applies its own"}

    def fix(self) -> str:
        if self.before:
            drop = f", and drop '{self.name}' from add" if self.added else ""
            return f"write outputs: [{self.before}]{drop}"
        return f"drop `activation` from '{self.name}'"
