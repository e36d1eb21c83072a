"""What a layout says, and how much room things take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tlcompile.report.regions import Leaf, Node, Region

HEAD = 36  # height of a vertex and of a region's head
CELL = 16  # width of a state's letter
NAME, DETAIL, CUT_TEXT = 7.3, 6.1, 6.8  # widths of a character in any monospaced face
LABEL = 20  # below a vertex: the shape of what it computes
CUT = 36  # below that: the freeze point
STEP = 8  # between lines that run in parallel
TAIL = 13  # above a vertex: room for an arrow
APART = 24  # between places beside each other
PORT = 14  # between tensors that leave one region
MARGIN = 16  # between a region's frame and what is in it


@dataclass(eq=False)
class Port:
    """Tensors that enter or leave a region together, at one place of its border."""

    tensors: tuple[Leaf, ...]
    removed: bool = False
    minor: bool = False


Place = Leaf | Region | Port


@dataclass(frozen=True)
class Wire:
    """One tensor's way from one place to another in a region."""

    source: Place
    tensor: Leaf
    target: Place


@dataclass(frozen=True)
class Route:
    """A wire as corners: (x, row, distance below the bottom of that row).

    The first corner is the source's own bottom; `row` says which row that is in.
    """

    wire: Wire
    corners: tuple[tuple[int, int, int], ...]


@dataclass
class Cut:
    """The freeze point: a line at a distance below a row; all of the region's width if `clean`."""

    text: str
    row: int
    below: int
    x: int
    clean: bool


@dataclass
class Layout:
    """One region's inside. Row 0 is its head.

    Attributes:
        left: How far it reaches to the left of its own x.
        right: And to the right.
        gaps: Below each row.
        entries: x of each tensor that comes in.
        exits: x of each tensor that goes out.
    """

    region: Region
    inner: dict[Region, Layout]
    left: int = 0
    right: int = 0
    rows: dict[Place, int] = field(default_factory=dict)
    xs: dict[Place, int] = field(default_factory=dict)
    gaps: list[int] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    entries: dict[Leaf, int] = field(default_factory=dict)
    exits: dict[Leaf, int] = field(default_factory=dict)

    def start(self, wire: Wire) -> int:
        """Return the x at which a wire leaves its source."""
        x = self.xs[wire.source]
        inside = isinstance(wire.source, Region)
        return x + self.inner[wire.source].exits[wire.tensor] if inside else x  # type: ignore[index]

    def end(self, wire: Wire) -> int:
        """Return the x at which a wire reaches its target."""
        x = self.xs[wire.target]
        inside = isinstance(wire.target, Region)
        return x + self.inner[wire.target].entries[wire.tensor] if inside else x  # type: ignore[index]

    def exits_of(self, place: Place) -> dict[Leaf, int]:
        """Return where tensors leave a region, from its own x; nothing for a vertex."""
        return self.inner[place].exits if isinstance(place, Region) else {}

    def reach(self, place: Place) -> tuple[int, int]:
        """Return how far a place reaches to the left and to the right of its x, when open."""
        if isinstance(place, Port):
            return 6, 6
        if isinstance(place, Region):
            inner = self.inner[place]
            below = max(inner.exits.values(), default=0) + 8 + label_width(inner.exits)
            return inner.left, max(inner.right, below)
        return box_width(place) // 2, max(box_width(place) // 2, 8 + label_width([place]))


def box_width(node: Node) -> int:
    """Return the width of a vertex' box or of a region's head; even, so that its middle is whole."""
    cells = CELL * len(node.states) + (14 if isinstance(node, Region) else 0)
    wide = max(NAME * len(node.label), DETAIL * len(detail(node)))
    return (max(96, int(cells + wide + 18)) + 1) // 2 * 2


def label_width(tensors: Iterable[Leaf]) -> int:
    """Return the width of the shapes written below a place."""
    return int(DETAIL * len(shapes(tensors)))


def shapes(tensors: Iterable[Leaf]) -> str:
    """Return the shapes of tensors that leave one place, once where they are equal."""
    return "  ".join(dict.fromkeys(map(_shape, tensors)))


def _shape(leaf: Leaf) -> str:
    return f"{leaf.row.was} → {leaf.row.shape}" if leaf.row.was else leaf.row.shape


def _counted(number: int) -> str:
    return "1 vertex" if number == 1 else f"{number} vertices"


def detail(node: Node) -> str:
    """Return the second line of a box: what it is, and its parameters."""
    if isinstance(node, Leaf):
        numel, what = node.row.num_parameters, node.row.kind
    else:
        leaves = [leaf for leaf in node.leaves() if node.removed or not leaf.removed]
        numel, what = sum(leaf.row.num_parameters for leaf in leaves), _counted(len(leaves))
    return f"{what} · {numel:,}" if numel else what
