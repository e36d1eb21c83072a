"""Ways of tensors inside a region: straight down, or by a lane beside the trunk."""

from __future__ import annotations

from collections import defaultdict

from tlcompile.report.measures import (
    CUT,
    CUT_TEXT,
    LABEL,
    MARGIN,
    PORT,
    STEP,
    TAIL,
    Cut,
    Layout,
    Place,
    Port,
    Route,
    Wire,
    box_width,
)
from tlcompile.report.regions import Leaf

Lane = tuple[Place, Leaf]  # what a lane carries: a tensor from one place, to all who read it there
Landing = tuple[Place, int]  # where lines to one place meet: the place, and the x of its entry


def neighbours(wires: list[Wire]) -> tuple[dict[Place, list[Place]], dict[Place, list[Place]]]:
    """Return what each place reads, and who reads it."""
    before: dict[Place, list[Place]] = defaultdict(list)
    after: dict[Place, list[Place]] = defaultdict(list)
    for wire in wires:
        before[wire.target].append(wire.source)
        after[wire.source].append(wire.target)
    return before, after


def add_routes(layout: Layout, wires: list[Wire], chains: list[list[Place]]) -> None:
    """Find each wire's corners and the gap below each row; widen the region for what it needs."""
    lanes = _lanes(layout, [wire for wire in wires if not _own_column(layout, wire, chains)])
    leaving: dict[int, dict[Lane, int]] = defaultdict(dict)  # by row: which line below it
    coming: dict[int, dict[Landing, set[int]]] = defaultdict(lambda: defaultdict(set))
    for wire in wires:
        if wire in lanes:
            lines = leaving[layout.rows[wire.source]]
            lines.setdefault((wire.source, wire.tensor), len(lines))
        x = lanes.get(wire, layout.start(wire))
        if x != layout.end(wire):
            coming[layout.rows[wire.target] - 1][wire.target, layout.end(wire)].add(x)
    landing = {row: _ordered(found) for row, found in coming.items()}
    _add_cuts(layout)
    last_row = max(row for place, row in layout.rows.items() if not isinstance(place, Port))
    first = [_first_line(layout, row) for row in range(last_row + 1)]
    counts = [len(leaving[row]) + len(coming[row]) for row in range(last_row + 1)]
    layout.gaps = [line + STEP * n + TAIL for line, n in zip(first, counts, strict=True)]
    for wire in wires:
        top, row = layout.rows[wire.source], layout.rows[wire.target] - 1
        x, end = layout.start(wire), layout.end(wire)
        corners = [(x, top, 0)]
        if wire in lanes:
            below = first[top] + STEP * leaving[top][wire.source, wire.tensor]
            corners += [(x, top, below), (lanes[wire], top, below)]
            x = lanes[wire]
        if x != end:
            line, end = landing[row][wire.target, end]
            below = first[row] + STEP * (len(leaving[row]) + line)
            corners += [(x, row, below), (end, row, below)]
        corners.append((end, row, layout.gaps[row]))
        layout.routes.append(Route(wire, tuple(corners)))
    _widen(layout, lanes)


def _ordered(coming: dict[Landing, set[int]]) -> dict[Landing, tuple[int, int]]:
    """Return which line below a row leads where, and the x at which it ends.

    What comes down at the x where another ends turns off above that one, or they would lie on each
    other. Where that asks for a circle, one ends a little aside.
    """
    order: dict[Landing, tuple[int, int]] = {}
    waiting = dict(coming)
    while waiting:
        free = [
            landing
            for landing in waiting
            if not any(landing[1] in xs for other, xs in waiting.items() if other != landing)
        ]
        first = (free or list(waiting))[0]
        order[first] = (len(order), first[1] if free else first[1] + PORT // 2)
        del waiting[first]
    return order


def _first_line(layout: Layout, row: int) -> int:
    """Return where lines begin below a row: under the shapes, and under the freeze point."""
    cuts = sum(cut.row == row for cut in layout.cuts)
    return (LABEL if row else 10) + CUT * cuts


def _own_column(layout: Layout, wire: Wire, chains: list[list[Place]]) -> bool:
    """Return whether nothing stands below a wire's source down to its target."""
    if layout.rows[wire.target] == layout.rows[wire.source] + 1:
        return True
    chain = next(chain for chain in chains if wire.source in chain)
    place = chain.index(wire.source)
    if isinstance(wire.source, Port):
        return chain is chains[0] and chain[place + 1] is wire.target
    return chain[place + 1 : place + 2] in ([], [wire.target])


def _lanes(layout: Layout, wires: list[Wire]) -> dict[Wire, int]:
    """Return the x of each wire's lane, to the left of what it passes; short ones are inside.

    Wires of one tensor from one place share a lane.
    """
    ends: dict[Lane, int] = {}
    for wire in wires:
        lane = (wire.source, wire.tensor)
        ends[lane] = max(ends.get(lane, 0), layout.rows[wire.target])
    spans = {lane: range(layout.rows[lane[0]], end) for lane, end in ends.items()}
    reaches: dict[int, int] = defaultdict(int)
    for place, row in layout.rows.items():
        if not isinstance(place, Port):
            reaches[row] = max(reaches[row], layout.reach(place)[0] - layout.xs[place])
    found: dict[Lane, int] = {}
    for lane in sorted(spans, key=lambda lane: (len(spans[lane]), -spans[lane].start)):
        x = -max(reaches[row] for row in spans[lane][1:]) - 12
        taken = {found[other] for other in found if overlap(spans[lane], spans[other])}
        while any(abs(x - other) < STEP for other in taken):
            x -= STEP
        found[lane] = x
    return {wire: found[wire.source, wire.tensor] for wire in wires}


def overlap(one: range, other: range) -> bool:
    """Return whether two runs of rows meet."""
    return one.start < other.stop and other.start < one.stop


def _add_cuts(layout: Layout) -> None:
    """Draw the freeze point below each place from which a boundary tensor leaves the frozen part."""
    for node, tensor in layout.region.cuts:
        row = layout.rows[node]
        below = LABEL + CUT * sum(cut.row == row for cut in layout.cuts)
        text = f"frozen above: {tensor.num_bytes:,} bytes of features an image"
        layout.cuts.append(Cut(text, row, below, layout.xs[node], _clean(layout, row)))


def _clean(layout: Layout, row: int) -> bool:
    """Return whether all is frozen down to a row, and nothing below it."""
    return all(
        leaf.row.frozen is (layout.rows[node] <= row)
        for node in layout.region.children
        for leaf in node.leaves()
        if not leaf.removed
    )


def _widen(layout: Layout, lanes: dict[Wire, int]) -> None:
    half = box_width(layout.region) // 2
    nodes = [place for place in layout.rows if not isinstance(place, Port)]
    outer = [layout.reach(node)[0] - layout.xs[node] for node in nodes]
    layout.left = max(half, *outer, *(-x for x in lanes.values())) + MARGIN
    texts = [cut.x + 10 + int(CUT_TEXT * len(cut.text)) for cut in layout.cuts]
    layout.right = max([half, layout.right, *texts]) + MARGIN
