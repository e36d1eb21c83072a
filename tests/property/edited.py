"""A description under edit: names, and who reads whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from property.drawn import LEARNS, SIDE, Description, Vertex


class Refused(Exception):  # noqa: N818, an answer
    """The recipe means nothing."""


@dataclass
class Node:
    """A vertex whose readers and sources may change."""

    vertex: Vertex
    reads: list[str]
    added: dict[str, Any] | None = None  # the entry of `add`, or of the part behind it
    doomed: bool = False

    @property
    def learns(self) -> bool:
        return self.vertex.kind in (*LEARNS, "param")


@dataclass
class Edited:
    """What a recipe makes of a description.

    Attributes:
        nodes: By name, without what is dead.
        outputs: One: a tensor; several: a dict or, untouched, a tuple.
        frozen: Names that learn nothing.
        modules: By vertex, for the vertices that have one; filled by `build`.
        named: Whether several outputs are a dict.
        num_logits: Width of the output where `head: auto` answers for it.
    """

    nodes: dict[str, Node]
    outputs: list[str]
    frozen: set[str]
    named: bool
    num_logits: int | None
    modules: dict[str, nn.Module] = field(default_factory=dict)


def resolved(description: Description) -> dict[str, Node]:
    """Read what was overwritten in place under the name of what overwrote it."""
    now: dict[str, str] = {}
    nodes: dict[str, Node] = {"x": Node(Vertex("x", "input", (), (3, SIDE, SIDE)), [])}
    for vertex in description.vertices:
        nodes[vertex.name] = Node(vertex, [now.get(read, read) for read in vertex.reads])
        if vertex.in_place:
            now[vertex.reads[0]] = vertex.name
    return nodes
