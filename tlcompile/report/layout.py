"""Where things stand inside a region: rows, columns and lanes, whatever is folded in it.

Every x is fixed. Every y is said as (row, distance below that row's bottom), because the heights of
rows change as regions are folded; drawing.py and graph.js add them up.
"""

from __future__ import annotations

from collections import defaultdict

from tlcompile.report.measures import APART, PORT, Layout, Place, Port, Wire, box_width
from tlcompile.report.regions import Leaf, Region
from tlcompile.report.routes import add_routes, neighbours, overlap


def arrange(region: Region) -> Layout:
    """Lay a region out, and every region in it."""
    inner = {child: arrange(child) for child in region.children if isinstance(child, Region)}
    layout = Layout(region, inner)
    wires = _wires(region)
    layout.rows = _rows(region, wires)
    chains = _chains(layout, wires)
    _place(layout, chains, wires)
    add_routes(layout, wires, chains)
    return layout


def _wires(region: Region) -> list[Wire]:
    """Return what runs in a region; tensors that the same vertices read come in together."""
    readers: dict[Leaf, list[Leaf]] = defaultdict(list)
    for link, found in region.links.items():
        if link.source is None:
            readers[link.tensor] += found
    together: dict[frozenset[Leaf], list[Leaf]] = defaultdict(list)
    for tensor, found in readers.items():
        together[frozenset(found)].append(tensor)
    entries = {tensor: port for port in map(_port, together.values()) for tensor in port.tensors}
    exits = {link.tensor: _port([link.tensor]) for link in region.links if link.target is None}
    wires: dict[Wire, None] = {}
    for link in region.links:
        source: Place = link.source or entries[link.tensor]
        target: Place = link.target or exits[link.tensor]
        tensor = source.tensors[0] if isinstance(source, Port) else link.tensor
        wires[Wire(source, tensor, target)] = None
    return list(wires)


def _port(tensors: list[Leaf]) -> Port:
    return Port(tuple(tensors))


def _rows(region: Region, wires: list[Wire]) -> dict[Place, int]:
    """Return the row of each place: one below the lowest that it reads.

    What reads nothing (a parameter, a second input) comes right above its reader instead.
    """
    before, after = neighbours(wires)
    rows: dict[Place, int] = {wire.source: 0 for wire in wires if isinstance(wire.source, Port)}
    anchored: set[Place] = set(rows) or {region.children[0]}
    for node in region.children:
        rows[node] = max((rows[place] for place in before[node]), default=0) + 1
        if any(place in anchored for place in before[node]):
            anchored.add(node)
    for node in reversed(region.children):
        below = [rows[place] for place in after[node] if not isinstance(place, Port)]
        if node not in anchored and below:
            rows[node] = min(below) - 1
    used = {row: index for index, row in enumerate(sorted({0, *rows.values()}))}
    rows = {place: used[row] for place, row in rows.items()}
    exits = [wire.target for wire in wires if isinstance(wire.target, Port)]
    return rows | dict.fromkeys(exits, len(used))


def _chains(layout: Layout, wires: list[Wire]) -> list[list[Place]]:
    """Return straight runs: each place with the best of its readers, if it is that one's best too.

    The first is the trunk. Best is what lies on the longest way, and what is still there.
    """
    before, after = neighbours(wires)
    order = sorted(layout.rows, key=lambda place: layout.rows[place])
    depth: dict[Place, int] = {order[0]: 1}
    for place in order:  # along tensors only, from what comes in
        above = [depth[p] for p in before[place] if not p.minor and depth[p]]
        depth.setdefault(place, 1 + max(above) if above else int(isinstance(place, Port)))
    height: dict[Place, int] = {}
    for place in reversed(order):
        height[place] = 1 + max((height[p] for p in after[place]), default=0)
    best_after = {
        p: max(after[p], key=lambda q: (not q.minor, height[q])) for p in order if after[p]
    }
    best_before = {
        p: max(before[p], key=lambda q: (not q.minor, depth[q])) for p in order if before[p]
    }
    chains: list[list[Place]] = []
    for place in order:
        previous = best_before.get(place)
        if previous is not None and best_after[previous] is place:
            next(chain for chain in chains if chain[-1] is previous).append(place)
        else:
            chains.append([place])
    trunk = max(chains, key=lambda chain: sum(not p.minor for p in chain))
    return [trunk, *(chain for chain in chains if chain is not trunk)]


def _place(layout: Layout, chains: list[list[Place]], wires: list[Wire]) -> None:
    """Put the trunk in the middle, and every other chain to the right of what is beside it.

    A chain needs its place down to whoever reads its end: that way runs straight below it.
    """
    _, after = neighbours(wires)
    trunk = chains[0]
    taken: list[tuple[range, int]] = []  # rows, and how far to the right something reaches in them
    for chain in chains:
        nodes = [place for place in chain if not isinstance(place, Port)]
        if not nodes:
            continue
        bottom = max(layout.rows[p] for p in [*after[nodes[-1]], nodes[-1]])
        rows = range(layout.rows[nodes[0]], max(bottom, layout.rows[nodes[-1]] + 1))
        beside = [right for other, right in taken if overlap(other, rows)]
        left = max(layout.reach(node)[0] for node in nodes)
        x = 0 if chain is trunk else max(beside, default=0) + APART + left
        layout.xs |= dict.fromkeys(nodes, x)
        ways = [x for node in nodes for x in layout.exits_of(node).values()]
        taken.append((rows, x + max(ways, default=0)))
        for node in nodes:
            row = layout.rows[node]
            taken.append((range(row, row + 1), x + layout.reach(node)[1]))
    layout.right = max(right for _, right in taken)
    _place_ports(layout, trunk)


def _place_ports(layout: Layout, trunk: list[Place]) -> None:
    """Put the trunk's tensor in the middle of the border and the others to its right."""
    for row, found in ((0, layout.entries), (max(layout.rows.values()), layout.exits)):
        ports = [p for p in layout.rows if isinstance(p, Port) and layout.rows[p] == row]
        ports.sort(key=lambda port: port not in trunk)
        room = box_width(layout.region) // 2 - 10
        step = min(PORT, room // len(ports)) if ports else PORT
        for index, port in enumerate(ports):
            layout.xs[port] = index * step
            found |= dict.fromkeys(port.tensors, index * step)
