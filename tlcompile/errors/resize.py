"""A width does not fit: what a line of `resize` asks for, and what the model makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import listed
from tlcompile.errors.graph import GraphError


@dataclass(eq=False, kw_only=True)
class ResizeFollowerError(GraphError):
    """A vertex has no width of its own: others decide it."""

    slug: ClassVar[str] = "resize-follower"

    name: str
    kind: str
    deciders: tuple[str, ...]

    def headline(self) -> str:
        return f"'{self.name}' ({self.kind}) has no width of its own to resize"

    def facts(self) -> dict[str, str]:
        found = listed([repr(name) for name in self.deciders]) or "nothing that can be resized"
        return {
            "found": f"{found} decides its width",
            "wanted": "a linear layer or a convolution, not a depthwise one",
        }

    def fix(self) -> str:
        if not self.deciders:
            return f"drop {self.name} from resize"
        return f"resize {listed([repr(name) for name in self.deciders])} instead"


@dataclass(eq=False, kw_only=True)
class ResizeMembersError(GraphError):
    """What is added up must have one width; layers beside the named one would have to change, too."""

    slug: ClassVar[str] = "resize-members"

    name: str
    verb: str
    changed: str
    width: int
    other: str
    other_width: int
    members: tuple[str, ...]
    line: str

    def headline(self) -> str:
        return (
            f"'{self.name}' {self.verb} '{self.changed}' ({self.width}) and '{self.other}' "
            f"({self.other_width})"
        )

    def facts(self) -> dict[str, str]:
        return {
            "found": f"{len(self.members)} layers of one width: {', '.join(self.members)}",
            "wanted": "all of them resized together; nothing spreads sideways by itself",
        }

    def fix(self) -> str:
        return f"write\n{self.line}"


@dataclass(eq=False, kw_only=True)
class ResizeClashError(GraphError):
    """Two widths meet where one is needed."""

    slug: ClassVar[str] = "resize-clash"

    name: str
    widths: tuple[str, ...]

    def headline(self) -> str:
        return f"different widths meet at '{self.name}'"

    def facts(self) -> dict[str, str]:
        return {"found": ", ".join(self.widths), "wanted": "one width"}

    def fix(self) -> str:
        return "give these lines of resize one width, or drop one of them"


@dataclass(eq=False, kw_only=True)
class FixedWidthError(GraphError):
    """A width would have to change that no layer of its own decides."""

    slug: ClassVar[str] = "fixed-width"

    name: str
    other: str
    width: int
    by: str
    wanted: int

    def headline(self) -> str:
        return f"'{self.name}' needs {self.wanted} channels from '{self.other}', which has {self.width}"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.by} decides it", "wanted": "a layer whose width can be changed"}

    def fix(self) -> str:
        return f"drop the line, or write remove: {{{self.name}: replace}} and add what fits there"


@dataclass(eq=False, kw_only=True)
class NoWidthRuleError(GraphError):
    """A layer with weights of its own, of which nobody knows how they depend on the width."""

    slug: ClassVar[str] = "no-width-rule"

    name: str
    kind: str
    shapes: tuple[str, ...]

    def headline(self) -> str:
        return f"'{self.name}' ({self.kind}) cannot take another width"

    def facts(self) -> dict[str, str]:
        return {
            "found": listed(self.shapes) or f"a {self.kind}",
            "wanted": "linear layers, convolutions, norms, PReLU, and vertices without weights",
        }

    def fix(self) -> str:
        return f"drop the line, or write remove: {{{self.name}: replace}} and add a layer"


@dataclass(eq=False, kw_only=True)
class WrittenWidthError(GraphError):
    """The model's own code has a width written into it."""

    slug: ClassVar[str] = "written-width"

    name: str
    kind: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    reason: str

    def headline(self) -> str:
        return (
            f"'{self.name}' ({self.kind}) does not take another width: it is written into the model"
        )

    def facts(self) -> dict[str, str]:
        return {
            "before": "; ".join(self.before),
            "found": f"{'; '.join(self.after)}; {self.reason}",
            "wanted": "the shapes before",
        }

    def fix(self) -> str:
        return "drop the line, or resize another layer"


@dataclass(eq=False, kw_only=True)
class NotDivisibleError(GraphError):
    """A width is no multiple of the number of groups."""

    slug: ClassVar[str] = "not-divisible"

    name: str
    kind: str
    groups: int
    width: int

    def headline(self) -> str:
        return (
            f"'{self.name}' ({self.kind}) has {self.groups} groups and cannot be {self.width} wide"
        )

    def facts(self) -> dict[str, str]:
        return {"found": str(self.width), "wanted": f"a multiple of {self.groups}"}

    def fix(self) -> str:
        below = self.width // self.groups * self.groups
        near = [str(width) for width in (below, below + self.groups) if width]
        return f"choose a width that gives it {' or '.join(near)}"


@dataclass(eq=False, kw_only=True)
class ResizeInputError(GraphError):
    """`in` promises a width that nothing delivers."""

    slug: ClassVar[str] = "resize-input"

    name: str
    width: int
    source: str
    shape: str
    delivered: int

    def headline(self) -> str:
        return f"'{self.name}' is to read {self.width} channels and gets {self.delivered}"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.source}: {self.shape}", "wanted": f"a width of {self.width}"}

    def fix(self) -> str:
        return f"drop `in`: it is inferred; or resize what '{self.name}' reads"


@dataclass(eq=False, kw_only=True)
class ResizeDisagreeError(GraphError):
    """Two lines of `resize` meet in one layer and say different things of it."""

    slug: ClassVar[str] = "resize-disagree"

    name: str
    option: str
    lines: tuple[str, ...]

    def headline(self) -> str:
        return f"lines of resize disagree about '{self.name}': {self.option}"

    def facts(self) -> dict[str, str]:
        return {"found": "; ".join(self.lines), "wanted": f"one {self.option}"}

    def fix(self) -> str:
        return f"write the same {self.option} on these lines"


@dataclass(eq=False, kw_only=True)
class SharedWidthError(GraphError):
    """One layer is used at several places, which would need it in several widths."""

    slug: ClassVar[str] = "shared-width"

    name: str
    places: tuple[str, ...]

    def headline(self) -> str:
        return f"'{self.name}' is used at several places and cannot be resized for one of them"

    def facts(self) -> dict[str, str]:
        return {"found": listed(self.places), "wanted": "one width, and weights of its own"}

    def fix(self) -> str:
        return "drop the line, or give each place a layer of its own"


@dataclass(eq=False, kw_only=True)
class OverlapUnknownError(GraphError):
    """Behind this vertex nobody knows which weights belong to which channel."""

    slug: ClassVar[str] = "overlap-unknown"

    name: str
    kind: str

    def headline(self) -> str:
        return f"behind '{self.name}' ({self.kind}) the overlapping weights are not known"

    def facts(self) -> dict[str, str]:
        return {
            "found": "channels that are reordered, divided or mixed with new ones",
            "wanted": "norms, activations, poolings, flattens, concatenations, equal sums",
        }

    def fix(self) -> str:
        return "drop overlap: true from this line"
