"""What a sweep's charts show by place, colour and symbol: read from the keys that its points vary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tlcompile.report.charts import COLOURS, SHAPES, Scale, names_scale, number_scale
from tlcompile.report.pages import SweepData, SweepPoint

FREEZE = "freeze point"
NAMES = 8  # numbers up to which each is a place of its own


@dataclass(frozen=True)
class Encoding:
    """Which key is what. Seeds are repeats: they spread, and are never told apart.

    Attributes:
        across: The key to the right, or FREEZE.
        values: Its values, in their order.
        colour: The key that colours; None: all are of one colour.
        colours: Its values.
        shape: The key of the symbols; the one of the colours where there is but one.
        shapes: Its values.
        repeats: Keys of seeds that vary.
        rest: Keys that vary and are not told apart in the charts.
        keys: Every key that varies, in the order of the table.
    """

    across: str
    values: tuple[str, ...]
    colour: str | None
    colours: tuple[str, ...]
    shape: str | None
    shapes: tuple[str, ...]
    repeats: tuple[str, ...]
    rest: tuple[str, ...]
    keys: tuple[str, ...]

    def place(self, point: SweepPoint) -> str:
        """Return the value to the right of a point."""
        return point.freeze if self.across == FREEZE else value_of(point, self.across)

    def colour_of(self, point: SweepPoint) -> int:
        """Return the number of a point's colour."""
        return self.colours.index(value_of(point, self.colour)) if self.colour else 0

    def shape_of(self, point: SweepPoint) -> int:
        """Return the number of a point's symbol."""
        return self.shapes.index(value_of(point, self.shape)) if self.shape else 0

    def groups(self, points: Sequence[SweepPoint]) -> dict[tuple[str, int, int], list[int]]:
        """Return the places of points that differ in their seeds, or in `rest`, alone."""
        found: dict[tuple[str, int, int], list[int]] = {}
        for index, point in enumerate(points):
            key = (self.place(point), self.colour_of(point), self.shape_of(point))
            found.setdefault(key, []).append(index)
        return found

    def scale(self) -> Scale:
        """Return the scale to the right: names in their order, or many numbers."""
        if self.across != FREEZE and len(self.values) > NAMES and all(map(number, self.values)):
            return number_scale(map(float, self.values))
        return names_scale([value or "(default)" for value in self.values])

    def right(self, point: SweepPoint) -> float:
        """Return where a point lies on that scale."""
        value = self.place(point)
        return float(self.values.index(value)) if self.scale().named else float(value)


def value_of(point: SweepPoint, key: str | None) -> str:
    """Return what a point says of a key; empty where it says nothing."""
    return point.overrides.get(key, "") if key else ""


def number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def encode(data: SweepData) -> Encoding:
    """Choose what is shown how: the freeze point to the right, the next keys as colour and symbol."""
    keys = dict.fromkeys(key for point in data.points for key in point.overrides)
    values = {key: _ordered(value_of(point, key) for point in data.points) for key in keys}
    varied = [key for key, found in values.items() if len(found) > 1]
    repeats = tuple(key for key in varied if key.rpartition(".")[2] == "seed")
    depth = len(data.freeze_points) > 1
    others = [k for k in varied if k not in repeats and not (depth and k.startswith("freeze"))]
    if depth:
        across, places = FREEZE, data.freeze_points
    else:
        across = (others or list(repeats) or list(keys) or [FREEZE])[0]
        places = values.get(across, data.freeze_points)
        others = [key for key in others if key != across]
    told = [key for key in others if len(values[key]) <= min(COLOURS, len(SHAPES))]
    colour = told[0] if told else None
    shape = told[1] if len(told) > 1 else colour
    return Encoding(
        across, places,
        colour, values[colour] if colour else (),
        shape, values[shape] if shape else (),
        tuple(key for key in repeats if key != across),
        tuple(key for key in others if key not in (colour, shape)),
        tuple(varied or keys),
    )  # fmt: skip


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    """Return different values: numbers by size, others as they come."""
    found = tuple(dict.fromkeys(values))
    return tuple(sorted(found, key=float)) if all(map(number, found)) else found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last word of each key, as many words as it takes to tell them apart."""
    names = {}
    for key in keys:
        if key == "freeze.upto" and "freeze" not in keys:
            names[key] = "freeze"  # the last word alone says nothing
            continue
        words = key.split(".")
        tails = (".".join(words[-n:]) for n in range(1, len(words) + 1))
        names[key] = next(
            (t for t in tails if sum(k == t or k.endswith(f".{t}") for k in keys) == 1), key
        )
    return names
