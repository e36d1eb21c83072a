"""Draw a layout as SVG: boxes, wires, shapes, the freeze point. graph.js moves them on folding."""

from __future__ import annotations

from html import escape

from tlcompile.report.measures import (
    CELL,
    HEAD,
    Cut,
    Layout,
    Place,
    Port,
    Route,
    box_width,
    detail,
    shapes,
)
from tlcompile.report.regions import OUTPUT, Leaf, Node, Region, name_of

LETTERS = {
    "frozen": "F",
    "trains": "T",
    "kept": "·",
    "added": "A",
    "replaced": "R",
    "resized": "S",
    "removed": "X",
    OUTPUT: "",
}
MEANINGS = {
    "frozen": "frozen: learns nothing",
    "trains": "kept, trains",
    "kept": "kept, has no weights",
    "added": "added",
    "replaced": "replaced: its weights are new",
    "resized": "resized: its weights are new",
    "removed": "removed: stood here",
}
ROUND = 6  # radius of a corner
EDGE = 12  # around the whole picture
PAGE = 1600  # what can be read when it is printed on one page

Corners = list[tuple[int, int]]


def draw(layout: Layout, title: str) -> str:
    """Return the whole model as one SVG element."""
    inside, height = _inside(layout, 0)
    left, right = _visible(layout)
    box = f"{-left - EDGE} {-EDGE} {left + right + 2 * EDGE} {height + 2 * EDGE}"
    _, _, width, tall = box.split()
    look = "graph tall" if int(tall) > PAGE else "graph"
    return (
        f'<svg class="{look}" role="group" aria-label="{escape(title)}" viewBox="{box}" '
        f'width="{width}" height="{tall}">\n<g class="node region open root">{inside}</g>\n</svg>'
    )


def _visible(layout: Layout) -> tuple[int, int]:
    """Return how far the picture reaches with regions as they start."""
    left, right = 0, 0
    for child in layout.region.children:
        reach = layout.reach(child)
        if isinstance(child, Region) and not child.expanded:
            reach = (box_width(child) // 2, min(reach[1], max(box_width(child) // 2 + 4, 180)))
        left = max(left, reach[0] - layout.xs[child])
        right = max(right, reach[1] + layout.xs[child])
    lanes = [x for route in layout.routes for x, _, _ in route.corners]
    texts = [layout.right] if layout.cuts else []
    return max([left, *(-x for x in lanes)]), max([right, *lanes, *texts])


def _inside(layout: Layout, head: int) -> tuple[str, int]:
    """Return what is in a region, and its height with its head."""
    drawn = {child: _node(child, layout) for child in layout.region.children}
    heights: dict[Place, int] = {child: height for child, (_, height) in drawn.items()}
    bottoms = [head]
    for row in range(1, len(layout.gaps)):
        tallest = max(heights[place] for place in drawn if layout.rows[place] == row)
        bottoms.append(bottoms[-1] + layout.gaps[row - 1] + tallest)
    tops = [0, *(b + gap for b, gap in zip(bottoms, layout.gaps, strict=True))]
    whole = tops[-1]
    parts = [_frame(layout, head, whole)] if head else []
    for route in layout.routes:
        source = route.wire.source
        start = head if isinstance(source, Port) else tops[layout.rows[source]] + heights[source]
        parts.append(_wire(route, layout, bottoms, start))
    parts += [_cut(cut, layout, bottoms) for cut in layout.cuts]
    for child, (markup, _) in drawn.items():
        at = f"translate({layout.xs[child]},{tops[layout.rows[child]]})"
        parts.append(markup.replace("@at", f'transform="{at}"', 1))
    gaps = " ".join(map(str, layout.gaps))
    return f'<g class="inside" data-gaps="{gaps}">{"".join(parts)}</g>', whole


def _node(node: Node, around: Layout) -> tuple[str, int]:
    """Return a node with @at for its place, and its height."""
    place = f'data-row="{around.rows[node]}" data-x="{around.xs[node]}" @at'
    if isinstance(node, Leaf):
        kind = "vertex" if node.states != (OUTPUT,) else "vertex end"
        attributes = f'class="node {kind}" data-name="{escape(node.row.name)}" {place}'
        return f"<g {attributes}>{_box(node)}{_below([node], 0, HEAD)}</g>\n", HEAD
    layout = around.inner[node]
    inside, whole = _inside(layout, HEAD)
    height = whole if node.expanded else HEAD
    kind = "region open" if node.expanded else "region"
    attributes = f'class="node {kind}" data-name="{escape(node.name)}" {place}'
    x = max(layout.exits.values(), default=0)
    below = _below(list(layout.exits), x, height)
    return f"<g {attributes}>{inside}{_box(node)}{below}</g>\n", height


def _below(tensors: list[Leaf], x: int, height: int) -> str:
    text = escape(shapes(tensors))
    return (
        f'<g class="below" transform="translate(0,{height})">'
        f'<text class="shape" x="{x + 7}" y="14">{text}</text></g>'
    )


def _frame(layout: Layout, head: int, height: int) -> str:
    wide = layout.left + layout.right
    tall = height - head // 2
    return (
        f'<rect class="frame" x="{-layout.left}" y="{head // 2}" width="{wide}" height="{tall}" '
        'rx="10"/>'
    )


def _box(node: Node) -> str:
    """Return a vertex' box or a region's head; what is known of it is its title."""
    wide = box_width(node)
    left = -wide // 2
    states = " ".join(f"is-{state}" for state in node.states[:1])
    mixed = " mixed" if isinstance(node, Region) and len(node.states) > 1 else ""
    rect = f'x="{left}" y="0" width="{wide}" height="{HEAD}" rx="5"'
    cells = "" if node.states == (OUTPUT,) else cells_of(node.states, left)
    x = left + CELL * len(node.states) + 8
    role = 'role="img" tabindex="0"'
    pile = sign = ""
    if isinstance(node, Region):
        role = f'role="button" tabindex="0" aria-expanded="{str(node.expanded).lower()}"'
        pile = f'<rect class="pile" transform="translate(4,4)" {rect}/>'
        at = f'transform="translate({x + 2},11)"'
        sign = f'<path class="sign closed" {at} d="M-2-4 4 0-2 4Z"/>'
        sign += f'<path class="sign opened" {at} d="M-4-2 4-2 0 4Z"/>'
        x += 14
    texts = f'<text class="name" x="{x}" y="15">{escape(node.label)}</text>'
    texts += f'<text class="detail" x="{x}" y="29">{escape(detail(node))}</text>'
    if node.states == (OUTPUT,):
        texts = f'<text class="name" x="0" y="22" text-anchor="middle">{OUTPUT}</text>'
    return (
        f'<g class="box {states}{mixed}" {role}><title>{escape(about(node))}</title>'
        f'{pile}<rect class="paper" {rect}/><rect class="body" {rect}/>{cells}{sign}{texts}</g>'
    )


def cells_of(states: tuple[str, ...], left: int) -> str:
    """Return a lettered, coloured cell for each state, from the left edge of a box."""
    parts = []
    for index, state in enumerate(states):
        x = left + CELL * index
        parts.append(
            f'<rect class="cell is-{state}" x="{x + 2}" y="2" width="{CELL - 2}" '
            f'height="{HEAD - 4}" rx="3"/>'
            f'<text class="letter" x="{x + 1 + CELL // 2}" y="22" text-anchor="middle">'
            f"{LETTERS[state]}</text>"
        )
    return "".join(parts)


def about(node: Node) -> str:
    """Return all that is known of a node, as lines."""
    states = "; ".join(MEANINGS.get(state, state) for state in node.states)
    if isinstance(node, Region):
        return f"{node.name}\n{detail(node)} parameters\n{states}"
    row = node.row
    if node.states == (OUTPUT,):
        return f"output: {', '.join(row.reads)}"
    was = f", was {row.was}" if row.was else ""
    work = f"{row.num_parameters:,} parameters, {row.flops:,} FLOPs, {row.num_bytes:,} bytes"
    init = f"; initialised by {row.init}" if row.init else ""
    why = f" ({row.origin})" if node.removed else ""
    reads = f"reads {', '.join(row.reads)}" if row.reads else "reads nothing"
    return f"{row.name}\n{row.kind} {row.shape}{was}\n{work}\n{states}{why}{init}\n{reads}"


def _wire(route: Route, layout: Layout, bottoms: list[int], start: int) -> str:
    wire = route.wire
    corners = [(x, bottoms[row] + below) for x, row, below in route.corners]
    corners[0] = (corners[0][0], start)
    arrow = not isinstance(wire.target, Port)
    source = "" if isinstance(wire.source, Port) else name_of(wire.source)
    target = "" if isinstance(wire.target, Port) else name_of(wire.target)
    children = layout.region.children
    index = -1 if isinstance(wire.source, Port) else children.index(wire.source)
    said = " ".join(f"{x},{row},{below}" for x, row, below in route.corners)
    look = "wire gone" if wire.target.removed else "wire"
    return (
        f'<path class="{look}{" arrow" * arrow}" data-from="{escape(source)}" '
        f'data-to="{escape(target)}" data-route="{index} {said}" d="{path(corners, arrow)}">'
        f"<title>{escape(_carried(wire.source, wire.tensor))}</title></path>"
    )


def _carried(source: Place, tensor: Leaf) -> str:
    tensors = source.tensors if isinstance(source, Port) else (tensor,)
    return "\n".join(f"{leaf.row.name} {leaf.row.shape}" for leaf in tensors)


def path(corners: Corners, arrow: bool) -> str:
    """Return lines through corners, rounded, as graph.js draws them too."""
    points = [p for i, p in enumerate(corners) if not i or p != corners[i - 1]]
    parts = [f"M{points[0][0]} {points[0][1]}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        parts.append(f"L{_toward(corner, before)}Q{corner[0]} {corner[1]} {_toward(corner, after)}")
    x, y = points[-1]
    parts.append(f"L{x} {y}")
    if arrow:
        parts.append(f"M{x - 4} {y - 6}L{x} {y}L{x + 4} {y - 6}")
    return "".join(parts)


def _toward(corner: tuple[int, int], other: tuple[int, int]) -> str:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = abs(dx) + abs(dy)
    radius = min(ROUND, length // 2)
    return f"{corner[0] + _sign(dx) * radius} {corner[1] + _sign(dy) * radius}"


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _cut(cut: Cut, layout: Layout, bottoms: list[int]) -> str:
    start = -layout.left + 6 if cut.clean else cut.x - 60
    stop = layout.right - 6 if cut.clean else cut.x + 60
    y = bottoms[cut.row] + cut.below
    return (
        f'<g class="cut" data-row="{cut.row}" data-below="{cut.below}" '
        f'transform="translate(0,{y})"><path d="M{start} 8H{stop}M{start} 12H{stop}"/>'
        f'<text x="{cut.x + 7}" y="26">{escape(cut.text)}</text></g>'
    )
