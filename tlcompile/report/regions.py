"""The vertices as a tree of regions by module path, and each connection in the region it runs in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import Summary, VertexRow

OUTPUT = "output"
SMALL = 24  # vertices; a model of this size needs no folding


@dataclass(eq=False)
class Leaf:
    """One vertex.

    Attributes:
        row: What the compiler says about it.
        states: frozen, trains, kept (learns nothing because it has no weights), added, replaced,
            resized, removed or output; a new vertex that is frozen has two.
        label: Its name without what the region around it says.
    """

    row: VertexRow
    states: tuple[str, ...]
    label: str = ""

    def leaves(self) -> Iterator[Leaf]:
        """Yield itself."""
        yield self

    @property
    def removed(self) -> bool:
        """Return whether it only shows what was there."""
        return self.states == ("removed",)

    @property
    def minor(self) -> bool:
        """Return whether the eye should pass it by: removed, or a size instead of a tensor."""
        return self.removed or not (self.row.shape.startswith("(") or self.states == (OUTPUT,))


@dataclass(eq=False)
class Region:
    """Consecutive vertices of one module. Consecutive: so regions never wait for each other.

    Attributes:
        name: The module's qualified name; empty for the whole model.
        children: In the order of computation.
        expanded: Whether it starts open.
        links: What runs between its children.
        cuts: The boundary tensors that are frozen on one side and not on the other, in here.
    """

    name: str
    children: list[Node]
    label: str = ""
    expanded: bool = False
    links: dict[Link, list[Leaf]] = field(default_factory=dict)
    cuts: list[tuple[Node, Boundary]] = field(default_factory=list)

    def leaves(self) -> Iterator[Leaf]:
        """Yield every vertex in it."""
        for child in self.children:
            yield from child.leaves()

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Return what is in it; plain vertices only where there is nothing else."""
        found = dict.fromkeys(state for leaf in self.leaves() for state in leaf.states)
        return tuple(state for state in found if state != "kept") or ("kept",)

    @property
    def removed(self) -> bool:
        """Return whether nothing in it is left."""
        return self.states == ("removed",)

    @cached_property
    def minor(self) -> bool:
        """Return whether the eye should pass it by."""
        return all(leaf.minor for leaf in self.leaves())


Node = Leaf | Region


@dataclass(frozen=True)
class Link:
    """A tensor on its way inside one region; None is the region's own border."""

    source: Node | None
    tensor: Leaf
    target: Node | None


def build_regions(summary: Summary, boundary: Sequence[Boundary]) -> Region:
    """Return the whole model as a tree."""
    leaves = [Leaf(row, _states(row)) for row in summary.vertices]
    by_name = {leaf.row.name: leaf for leaf in leaves}
    ghosts = _ghosts(summary)
    order = _with_ghosts(leaves, ghosts, by_name)
    end = Leaf(VertexRow(OUTPUT, "", "", summary.outputs, 0, "kept", False), (OUTPUT,), OUTPUT)
    root = Region("", [*_grouped(order, 0), end], expanded=True)
    reads = [(leaf, [by_name[name] for name in leaf.row.reads]) for leaf in [*leaves, end]]
    known = by_name | ghosts  # where a vertex was replaced, the removed one reads removed ones
    for ghost in ghosts.values():
        reads.append((ghost, [known[name] for name in ghost.row.reads if name in known]))
    _link(root, reads)
    _cut(root, boundary)
    _expand(root, everything=len(leaves) <= SMALL)
    return root


def _states(row: VertexRow) -> tuple[str, ...]:
    if row.origin != "kept":
        return (row.origin, "frozen") if row.frozen else (row.origin,)
    if row.frozen:
        return ("frozen",)
    return ("trains",) if row.num_parameters else ("kept",)


def _ghosts(summary: Summary) -> dict[str, Leaf]:
    """Return removed vertices that carried tensors; sizes and assertions would only hide them."""
    return {
        row.name: Leaf(replace(row, frozen=False), ("removed",))
        for row in summary.removed
        if row.shape.startswith("(")
    }


def _with_ghosts(
    leaves: list[Leaf], ghosts: dict[str, Leaf], by_name: dict[str, Leaf]
) -> list[Leaf]:
    """Put each removed vertex behind what it read, without tearing a region apart."""
    order = list(leaves)
    known = by_name | ghosts
    for ghost in ghosts.values():
        read = [known[name] for name in ghost.row.reads if name in known]
        place = max((order.index(leaf) for leaf in read if leaf in order), default=-1) + 1
        while 0 < place < len(order):
            before, after = order[place - 1].row.name, order[place].row.name
            if _shared(before, after) <= _shared(before, ghost.row.name):
                break
            place += 1
        order.insert(place, ghost)
    return order


def _shared(one: str, other: str) -> int:
    """Return how many modules two vertices have in common."""
    pairs = zip(one.split(".")[:-1], other.split(".")[:-1], strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _grouped(order: list[Leaf], depth: int) -> list[Node]:
    nodes: list[Node] = []
    for path, run in itertools.groupby(order, lambda leaf: _path(leaf, depth)):
        found = list(run)
        nodes += [_region(".".join(path), found, depth + 1)] if len(path) > depth else found
    for leaf in nodes:
        if isinstance(leaf, Leaf):
            leaf.label = short(leaf.row.name, depth)
    return nodes


def _path(leaf: Leaf, depth: int) -> tuple[str, ...]:
    return tuple(leaf.row.name.split(".")[:-1][: depth + 1])


def _region(name: str, leaves: list[Leaf], depth: int) -> Node:
    children = _grouped(leaves, depth)
    if len(children) == 1:  # a box around one box says nothing
        children[0].label = short(name_of(children[0]), depth - 1)
        return children[0]
    return Region(name, children, short(name, depth - 1))


def name_of(node: Node) -> str:
    """Return the qualified name."""
    return node.row.name if isinstance(node, Leaf) else node.name


def short(name: str, depth: int) -> str:
    """Return a name without its first modules; a bare number keeps the word before it."""
    parts = name.split(".")
    first = min(depth, len(parts) - 1)
    while first and parts[first].isdigit():
        first -= 1
    return ".".join(parts[first:])


def _link(root: Region, reads: list[tuple[Leaf, list[Leaf]]]) -> None:
    above = dict(_paths(root, ()))
    for reader, tensors in reads:
        for tensor in tensors:
            start, end = above[tensor], above[reader]
            level = next(i for i, (a, b) in enumerate(zip(start, end, strict=False)) if a is not b)
            _add(start[level - 1], Link(start[level], tensor, end[level]), reader)
            for inner in range(level + 1, len(start)):
                _add(start[inner - 1], Link(start[inner], tensor, None), reader)
            for inner in range(level + 1, len(end)):
                _add(end[inner - 1], Link(None, tensor, end[inner]), reader)


def _paths(node: Node, above: tuple[Node, ...]) -> Iterator[tuple[Leaf, tuple[Node, ...]]]:
    if isinstance(node, Leaf):
        yield node, (*above, node)
        return
    for child in node.children:
        yield from _paths(child, (*above, node))


def _add(region: Node, link: Link, reader: Leaf) -> None:
    assert isinstance(region, Region)
    region.links.setdefault(link, []).append(reader)


def _cut(root: Region, boundary: Sequence[Boundary]) -> None:
    """Note each boundary tensor in the innermost region where somebody reads it."""
    crossing = {tensor.vertex: tensor for tensor in boundary}
    found: dict[str, tuple[Region, Node]] = {}
    for region in _regions(root):  # from the outside in
        for link in region.links:
            if link.source and link.target and not link.target.removed:
                found[link.tensor.row.name] = (region, link.source)
    for name, tensor in crossing.items():
        if name in found:
            region, node = found[name]
            region.cuts.append((node, tensor))


def _regions(region: Region) -> Iterator[Region]:
    yield region
    for child in region.children:
        if isinstance(child, Region):
            yield from _regions(child)


def _expand(region: Region, *, everything: bool) -> bool:
    """Open what holds an edit or the freeze point; return whether there is anything to see."""
    inner = [_expand(c, everything=everything) for c in region.children if isinstance(c, Region)]
    states = {state for child in region.children for state in child.states}
    edited = bool(states & {"added", "replaced", "resized"}) or (
        "removed" in states and states != {"removed"}
    )
    region.expanded |= everything or edited or bool(region.cuts) or any(inner)
    return region.expanded
