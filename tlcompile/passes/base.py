"""What a pass is: its parameters, one method, and the promises that it keeps."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import RecipeKey
from tlcompile.errors.graph import GraphError
from tlcompile.graph.model_graph import ModelGraph

DOOMED = "doomed"  # node.meta key: the line of the recipe that removes this vertex


@dataclass(frozen=True, kw_only=True)
class Pass(ABC):
    """Edit a graph in place: valid before, valid after, anything in between.

    A pass is its parameters, so it prints, compares and goes into the record.

    Attributes:
        name: The file's name.
        key: The line of the recipe that asked for it, for error messages.
    """

    name: ClassVar[str]
    key: RecipeKey = ()

    @abstractmethod
    def apply(self, model_graph: ModelGraph) -> None:
        """Edit the graph."""

    def broken_promises(self, model_graph: ModelGraph) -> Iterator[str]:  # noqa: ARG002
        """Yield what the class promises and the graph does not hold; asked after `apply`."""
        yield from ()

    @contextlib.contextmanager
    def reading(self, *place: str | int) -> Iterator[None]:
        """Let an error about a name point at that name, `place` below the pass' own line."""
        try:
            yield
        except GraphError as error:
            error.key = error.key or (*self.key, *place)
            raise

    def __str__(self) -> str:
        fields = {k: v for k, v in vars(self).items() if k != "key" and v not in ((), None)}
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in fields.items())})"
