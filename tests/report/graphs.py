"""Summaries made by hand, and a drawing read back from its SVG."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import Summary, VertexRow
from tlcompile.report.drawing import draw
from tlcompile.report.layout import arrange
from tlcompile.report.measures import DETAIL, HEAD
from tlcompile.report.regions import Region, build_regions

SVG = ElementTree.Element

# Of a page with a graph, for questions in a browser.
GRAPH = """
const figure = document.querySelector(".graph-figure");
const all = (selector) => [...figure.querySelectorAll(selector)];
const wires = () => all(".wire").map((wire) => wire.getAttribute("d"));
const places = () => all(".node[data-row]").map((node) => node.getAttribute("transform"));
const open = () => all(".region.open:not(.root)").map((region) => region.dataset.name);
const box = (name) => all(".node").find((node) => node.dataset.name === name).querySelector(":scope > .box");
const said = () => figure.querySelector(".graph-about").textContent;
"""


def row(
    name: str,
    reads: str = "",
    *,
    kind: str = "Conv2d",
    shape: str = "(N, 8, 4, 4)",
    numel: int = 0,
    origin: str = "kept",
    frozen: bool = False,
) -> VertexRow:
    return VertexRow(name, kind, shape, tuple(reads.split()), numel, origin, frozen)


def summary(
    *rows: VertexRow, removed: tuple[VertexRow, ...] = (), outputs: str = "", model: str = "m"
) -> Summary:
    ends = tuple(outputs.split()) or (rows[-1].name,)
    return Summary(model, rows, ends, removed, (), {"x": (3, 8, 8)})


def edited() -> tuple[Summary, tuple[Boundary, ...]]:
    """Return a graph with every state: a residual, a branch, removed vertices, two outputs."""
    graph = summary(
        row("x", kind="input", frozen=True),
        row("stem.conv", "x", numel=216, frozen=True),
        row("stem.relu", "stem.conv", frozen=True),
        row("body.0.conv1", "stem.relu", numel=576, frozen=True),
        row("body.0.add", "body.0.conv1 stem.relu", kind="add", frozen=True),
        row("body.1.conv1", "body.0.add", numel=864, origin="resized", shape="(N, 12, 4, 4)"),
        row("body.1.conv2", "body.1.conv1", numel=864, origin="resized"),
        row("body.1.gate", "body.0.add", origin="added"),
        row("body.1.mix", "body.1.gate", numel=64, origin="added", frozen=True),
        row("body.1.add", "body.1.conv2 body.0.add body.1.mix", kind="add"),
        row("neck.reduce", "body.1.add", numel=128),
        row("pool", "neck.reduce"),
        row("aux", "pool", numel=51, origin="added"),
        row("fc", "pool", numel=119, origin="replaced"),
        removed=(
            row("neck.extra.conv", "neck.reduce", origin="drop neck.extra", numel=99),
            row("neck.extra.relu", "neck.extra.conv", origin="drop neck.extra"),
            row("classifier", "pool", origin="drop classifier"),
            row("size", "x", shape="Size", origin="nothing reads it any more"),
        ),
        outputs="fc aux",
    )
    return graph, (Boundary("body.0.add", (8, 4, 4), 512),)


def scattered(seed: int) -> Summary:
    """Return a random graph over random modules; some vertices are sizes, some are removed."""
    rng = random.Random(seed)
    rows = [row("x", kind="input")]
    path: list[str] = []
    for index in range(rng.randrange(3, 40)):
        while path and rng.random() < 0.3:
            path.pop()
        while len(path) < 3 and rng.random() < 0.3:
            path.append(f"{rng.choice('abc')}{index}")
        near = [r.name for r in rows[-6:]]
        reads = rng.sample(near, min(len(near), rng.choice([0, 1, 1, 1, 2, 3])))
        if rng.random() < 0.2:
            reads.append(rng.choice(rows).name)
        shape = rng.choice(["(N, 8, 4, 4)", "(N, 8, 4, 4)", "int"])
        rows.append(
            row(".".join([*path, f"v{index}"]), " ".join(dict.fromkeys(reads)), shape=shape)
        )
    gone = tuple(
        row(f"{rng.choice(rows).name}.gone{i}", rng.choice(rows).name, origin="drop it")
        for i in range(rng.choice([0, 0, 2]))
    )
    outputs = rng.sample([r.name for r in rows], rng.choice([1, 1, 2]))
    return summary(*rows, removed=gone, outputs=" ".join(outputs))


def drawn(graph: Summary, boundary: tuple[Boundary, ...] = (), unfold: bool | None = None) -> SVG:
    """Return the drawing; `unfold` opens or folds every region, None leaves them as they start."""
    root = build_regions(graph, boundary)
    if unfold is not None:
        for region in regions(root):
            region.expanded = unfold
    return ElementTree.fromstring(draw(arrange(root), "a graph"))


def regions(region: Region) -> Iterator[Region]:
    """Yield the regions below one."""
    for child in region.children:
        if isinstance(child, Region):
            yield child
            yield from regions(child)


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Line:
    """A wire between two names of one region; an empty name is the region's border."""

    source: str
    target: str
    tensors: str
    corners: tuple[tuple[int, int], ...]

    def pieces(self) -> Iterator[Box]:
        for (x, y), (u, v) in zip(self.corners, self.corners[1:], strict=False):
            yield Box("", min(x, u), min(y, v), max(x, u), max(y, v))


@dataclass(frozen=True)
class Inside:
    """What stands in one region that can be seen, in its own coordinates."""

    name: str
    boxes: list[Box]
    labels: list[Box]
    lines: list[Line]
    frame: Box | None


def insides(svg: SVG) -> Iterator[Inside]:
    """Yield every open region of a drawing."""
    for node in svg.iter():
        if "region" in classes(node) and "open" in classes(node):
            inside = next(child for child in node if "inside" in classes(child))
            nodes = [child for child in inside if "node" in classes(child)]
            wires = [child for child in inside if "wire" in classes(child)]
            frame = next((_rect(c) for c in inside if "frame" in classes(c)), None)
            labels = [label for child in nodes for label in _labels(child)]
            name = node.get("data-name") or ""
            lines = [_line(wire) for wire in wires]
            yield Inside(name, [_outline(n) for n in nodes], labels, lines, frame)


def classes(node: SVG) -> list[str]:
    return (node.get("class") or "").split()


def _rect(node: SVG, name: str = "") -> Box:
    x, y, width, height = (float(node.get(key) or 0) for key in ("x", "y", "width", "height"))
    return Box(name, x, y, x + width, y + height)


def _at(node: SVG, box: Box) -> Box:
    found = re.fullmatch(r"translate\((-?\d+),(-?\d+)\)", node.get("transform") or "")
    assert found, node.attrib
    x, y = map(int, found.groups())
    return Box(box.name, box.left + x, box.top + y, box.right + x, box.bottom + y)


def _outline(node: SVG) -> Box:
    """Return the room that a node takes: its box, and its frame where it is open."""
    body = next(n for n in node.iter() if "body" in classes(n) and n in own_box(node))
    box = _rect(body, node.get("data-name") or "")
    if "open" in classes(node):
        frame = next(_rect(n) for n in node.iter() if "frame" in classes(n))
        box = Box(
            box.name,
            min(box.left, frame.left),
            0,
            max(box.right, frame.right),
            max(HEAD, frame.bottom),
        )
    return _at(node, box)


def own_box(node: SVG) -> list[SVG]:
    """Return what is in the box of a node itself."""
    return list(next(child for child in node if "box" in classes(child)))


def _labels(node: SVG) -> Iterator[Box]:
    below = next(child for child in node if "below" in classes(child))
    text = below[0]
    if text.text:
        x, y = float(text.get("x") or 0), float(text.get("y") or 0)
        label = Box(text.text, x, y - 9, x + DETAIL * len(text.text), y + 2)
        yield _at(node, _at(below, label))


def _line(wire: SVG) -> Line:
    d = (wire.get("d") or "").split("M")[1]  # without its arrow
    corners = re.findall(r"(?:^|[LQ])(-?\d+) (-?\d+)", d)
    kept = [corners[0], *re.findall(r"Q(-?\d+) (-?\d+)", d), corners[-1]]
    title = wire[0].text or ""
    points = tuple((int(x), int(y)) for x, y in kept)
    return Line(wire.get("data-from") or "", wire.get("data-to") or "", title, points)
