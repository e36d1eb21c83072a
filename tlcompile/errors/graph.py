"""The recipe does not fit the base model: names, tracing, splitting. Edits are in errors/edits.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import TLCompileError, did_you_mean, listed, nearest


@dataclass(eq=False, kw_only=True)
class GraphError(TLCompileError):
    """The recipe does not fit the base model."""

    exit_code: ClassVar[int] = 2


@dataclass(eq=False, kw_only=True)
class NotTraceableError(GraphError):
    """A module's forward cannot be written down as a graph."""

    slug: ClassVar[str] = "not-traceable"

    model: str
    reason: str
    wanted: str = "a forward that does not look at the values of its data"
    advice: str = "use another base model; `tlcompile zoo` lists those that trace"

    def headline(self) -> str:
        return f"'{self.model}' cannot be traced as one graph"

    def facts(self) -> dict[str, str]:
        return {"found": self.reason, "wanted": self.wanted}

    def fix(self) -> str:
        return self.advice


@dataclass(eq=False, kw_only=True)
class AlreadyCompiledError(GraphError):
    """A compiled model is given as the base of another recipe: its vertices would lose their names."""

    slug: ClassVar[str] = "already-compiled"

    model: str

    def headline(self) -> str:
        return f"the model from '{self.model}' that is given as base is compiled already"

    def facts(self) -> dict[str, str]:
        return {"found": "a CompiledModel", "wanted": "a module of your own, or a finished run"}

    def fix(self) -> str:
        return "write all edits into one recipe, or train this one and write base: {run: FOLDER}"


@dataclass(eq=False, kw_only=True)
class UnknownVertexError(GraphError):
    """A name is no vertex, region or stage of the base model."""

    slug: ClassVar[str] = "unknown-vertex"

    model: str
    name: str
    vertices: tuple[str, ...]

    def headline(self) -> str:
        return f"base model '{self.model}' has no vertex '{self.name}'"

    def facts(self) -> dict[str, str]:
        near = nearest(self.name, self.vertices)
        return {
            "found": f"'{self.name}'",
            "wanted": f"one of: {listed(near if near else self.vertices)}",
        }

    def fix(self) -> str:
        see = f"`tlcompile zoo {self.model}` lists them all"
        return did_you_mean(self.name, self.vertices, see)


@dataclass(eq=False, kw_only=True)
class NoMatchError(GraphError):
    """A pattern matches no vertex of the base model."""

    slug: ClassVar[str] = "no-match"

    model: str
    pattern: str
    vertices: tuple[str, ...]

    def headline(self) -> str:
        return f"no vertex of '{self.model}' matches '{self.pattern}'"

    def facts(self) -> dict[str, str]:
        near = nearest(self.pattern, self.vertices)
        return {
            "found": f"match: '{self.pattern}'",
            "wanted": f"a pattern over names such as {listed(near if near else self.vertices)}",
        }

    def fix(self) -> str:
        return f"`tlcompile zoo {self.model}` lists the names; `*` stands for any text, dots too"


@dataclass(eq=False, kw_only=True)
class InsideLeafError(GraphError):
    """A name points inside a module that is one vertex."""

    slug: ClassVar[str] = "inside-leaf"

    model: str
    name: str
    leaf: str
    kind: str

    def headline(self) -> str:
        return f"'{self.name}' lies inside '{self.leaf}' of '{self.model}', which is one vertex"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"a part of a {self.kind}",
            "wanted": f"'{self.leaf}' as a whole, or a vertex outside of it",
        }

    def fix(self) -> str:
        return f"write '{self.leaf}'"


@dataclass(eq=False, kw_only=True)
class AmbiguousNameError(GraphError):
    """A keyword of `freeze` is also the name of a vertex."""

    slug: ClassVar[str] = "ambiguous-name"

    model: str
    name: str
    vertex_shape: str
    stage_end: str
    stage_shape: str

    def headline(self) -> str:
        return f"'{self.name}' names two places in '{self.model}'"

    def facts(self) -> dict[str, str]:
        return {
            "vertex": f"the module '{self.name}' ends at {self.vertex_shape}",
            "stage": f"the computed stage ends with '{self.stage_end}' at {self.stage_shape}",
        }

    def fix(self) -> str:
        number = self.name.removeprefix("stage")
        return f"write {{upto: {{vertex: {self.name}}}}} or {{upto: {{stage: {number}}}}}"


@dataclass(eq=False, kw_only=True)
class UnknownStageError(GraphError):
    """A stage that this model does not have."""

    slug: ClassVar[str] = "unknown-stage"

    model: str
    name: str
    stages: tuple[str, ...]

    def headline(self) -> str:
        return f"base model '{self.model}' has no {self.name}"

    def facts(self) -> dict[str, str]:
        return {"wanted": f"one of: {listed(self.stages) or 'no stages here'}"}

    def fix(self) -> str:
        return (
            f"write {self.stages[-1]}" if self.stages else "freeze up to a vertex, `head` or `none`"
        )


@dataclass(eq=False, kw_only=True)
class SharedModuleError(GraphError):
    """One module is called on both sides of the freeze point."""

    slug: ClassVar[str] = "shared-module"

    module: str
    frozen: str
    trainable: str

    def headline(self) -> str:
        return f"'{self.module}' is used both in the frozen part and outside of it"

    def facts(self) -> dict[str, str]:
        return {"frozen": self.frozen, "trainable": self.trainable}

    def fix(self) -> str:
        return f"freeze both '{self.frozen}' and '{self.trainable}', or neither"


@dataclass(eq=False, kw_only=True)
class RandomVertexError(GraphError):
    """A frozen vertex draws random numbers, so its output cannot be computed once."""

    slug: ClassVar[str] = "random-vertex"

    name: str
    kind: str

    def headline(self) -> str:
        return f"'{self.name}' ({self.kind}) draws random numbers and lies in the frozen part"

    def facts(self) -> dict[str, str]:
        return {"found": "another output at each call", "wanted": "a frozen part that is fixed"}

    def fix(self) -> str:
        return (
            f"freeze up to a vertex before '{self.name}', or use nn.Dropout, which freezing stops"
        )


@dataclass(eq=False, kw_only=True)
class BatchStatisticsError(GraphError):
    """A frozen batch normalisation without running statistics: an image depends on its neighbours."""

    slug: ClassVar[str] = "batch-statistics"

    name: str
    kind: str

    def headline(self) -> str:
        return f"'{self.name}' ({self.kind}) normalises by its batch and lies in the frozen part"

    def facts(self) -> dict[str, str]:
        return {
            "found": "track_running_stats=False: an image's features depend on the others' beside it",
            "wanted": "a frozen part that sees one image at a time",
        }

    def fix(self) -> str:
        return f"freeze up to a vertex before '{self.name}', or use a norm with running statistics"


@dataclass(eq=False, kw_only=True)
class MixedSamplesError(GraphError):
    """The frozen part looks from one sample at another: its rows cannot be kept one by one."""

    slug: ClassVar[str] = "mixed-samples"

    name: str

    def headline(self) -> str:
        return f"the frozen part up to '{self.name}' mixes the samples of a batch"

    def facts(self) -> dict[str, str]:
        return {
            "found": "a sample's features change with the samples beside it",
            "wanted": "a frozen part that sees one sample at a time",
        }

    def fix(self) -> str:
        return "freeze up to a vertex before the operation over dimension 0 (mean, softmax, flip)"


@dataclass(eq=False, kw_only=True)
class NotYetError(GraphError):
    """A part of the language that this version cannot do."""

    slug: ClassVar[str] = "not-yet"

    what: str
    instead: str

    def headline(self) -> str:
        return f"{self.what} is not supported by this version"

    def facts(self) -> dict[str, str]:
        return {"found": self.what, "wanted": "a recipe without it; nothing was built"}

    def fix(self) -> str:
        return self.instead


@dataclass(eq=False, kw_only=True)
class PassBrokePromiseError(TLCompileError):
    """A pass left the graph in a bad state: our mistake, not the user's."""

    slug: ClassVar[str] = "pass-broke-promise"

    name: str
    promise: str
    ran: Sequence[str]

    def headline(self) -> str:
        return f"pass '{self.name}' left the graph in a bad state"

    def facts(self) -> dict[str, str]:
        return {"promise": self.promise, "ran": " > ".join(self.ran)}

    def fix(self) -> str:
        return "this is a bug in tlcompile: report it with the recipe"
