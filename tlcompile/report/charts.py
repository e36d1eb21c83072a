"""Charts as SVG: complete without a script. report.css colours them, report.js lets them answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 250  # of a panel, without the room for the names below it
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 44
CHARACTER = 6.7  # width of one at 12 px, on average
COLOURS = 6  # report.css has as many
LOG_FROM = 20.0  # largest over smallest value, from which an axis is logarithmic
_PREFIXES = ("", "k", "M", "G", "T")

# Symbols of the same area, about 5 px around (0, 0); each can be told from the others in grey.
SHAPES = (
    "M-4.6 0a4.6 4.6 0 1 0 9.2 0a4.6 4.6 0 1 0-9.2 0Z",  # circle
    "M0-5.8L5.5 4H-5.5Z",  # triangle
    "M-4.2-4.2H4.2V4.2H-4.2Z",  # square
    "M0-6L6 0L0 6L-6 0Z",  # diamond
    "M0 5.8L5.5-4H-5.5Z",  # triangle, upside down
    "M-2-5.6H2V-2H5.6V2H2V5.6H-2V2H-5.6V-2H-2Z",  # plus
)


@dataclass(frozen=True)
class Scale:
    """Values as places along one side of a chart.

    Attributes:
        low: The value at its beginning; its logarithm where `log`.
        high: And at its end.
        ticks: Values that are written beside it, with their words.
        log: Whether equal factors are equally far apart.
        named: Whether the ticks are names, which may be long and stand for whole numbers.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False
    named: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value: 0 at the beginning, 1 at the end; nan where it has none."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Panel:
    """One chart's frame.

    Attributes:
        title: What goes up, written above it.
        below: What goes to the right.
        x: Along the bottom.
        y: Along the left.
        bottom: Room for the names below.
        right: Room for labels at the right end.
    """

    title: str
    below: str
    x: Scale
    y: Scale
    bottom: int = BOTTOM
    right: int = RIGHT

    @property
    def height(self) -> int:
        """Return its height with the room below."""
        return HEIGHT + self.bottom

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies, in pixels."""
        return self.across(x), self.up(y)

    def across(self, x: float) -> float:
        """Return how far right a value lies."""
        return round(LEFT + self.x.at(x) * (WIDTH - LEFT - self.right), 1)

    def up(self, y: float) -> float:
        """Return how far down a value lies."""
        return round(HEIGHT - self.y.at(y) * (HEIGHT - TOP), 1)


def names_scale(names: Sequence[str]) -> Scale:
    """Return a scale of names, one a whole number from 0 on."""
    return Scale(-0.5, len(names) - 0.5, tuple(enumerate(names)), named=True)


def whole_scale(numbers: Sequence[int]) -> Scale:
    """Return a scale of whole numbers that follow each other, as epochs do."""
    first, last = min(numbers), max(numbers)
    step = next(s for f in range(6) for s in (10**f, 2 * 10**f, 5 * 10**f) if last / s <= 8)
    ticks = [i for i in range(0, last + 1, step) if i >= first] or [first]
    if step > 1 and first < ticks[0] - step / 3:
        ticks.insert(0, first)
    room = 0.5 if first == last else 0.02 * (last - first)
    return Scale(first - room, last + room, tuple((float(i), str(i)) for i in ticks))


def number_scale(
    values: Iterable[float], *, unit: str = "", percent: bool = False, log: bool | None = None,
    pad: float = 0.06, low: float | None = None, high: float | None = None,
) -> Scale:  # fmt: skip
    """Return a scale that holds values, with round ticks.

    Args:
        values: What is to be shown; what is not finite is not.
        unit: Behind each tick.
        percent: Whether 0.5 is written as 50 %.
        log: None: where the values differ by a large factor.
        pad: Room at both ends, as a share of the whole.
        low: Never begin below, where no value does: R2 may be negative.
        high: Never end above.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    least, most = min(known), max(known)
    if log is None:
        log = least > 0 and most / least >= LOG_FROM
    start, end = (math.log10(least), math.log10(most)) if log else (least, most)
    room = (end - start) * pad or (0.1 if log else abs(end) * 0.1 or 0.5)
    start = start - room if low is None or log or least < low else max(low, start - room)
    end = end + room if high is None or log else min(high, end + room)
    places = _log_ticks(start, end) if log else _ticks(start, end)
    shown = _words(places, unit, percent)
    return Scale(start, end, tuple(zip(places, shown, strict=True)), log)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(f for f in (1, 2, 2.5, 5, 10) if (high - low) / (step * f) <= 5.5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    factors = (1,) if high - low > 2.5 else (1, 3) if high - low > 1.2 else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    step = max(1, round((high - low) / 5))
    found = [10.0**p * f for p in powers if p % step == 0 for f in factors]
    return [value for value in found if low - 1e-9 <= math.log10(value) <= high + 1e-9]


def _words(values: Sequence[float], unit: str, percent: bool) -> list[str]:
    if percent:
        return [f"{100 * value:.12g} %" for value in values]
    behind = f" {unit}" if unit else ""
    return [f"{short(value)}{behind}" for value in values]


def short(number: float) -> str:
    """Show a number in at most three digits: '1.82M', '900', '0.003'."""
    power = 0
    size = abs(number)
    while size >= 999.5 and power < len(_PREFIXES) - 1:
        size, power = size / 1000, power + 1
    return f"{math.copysign(size, number):.3g}{_PREFIXES[power]}"


def room_below(scale: Scale) -> int:
    """Return how much room the names of a scale need below a panel."""
    longest = max((len(name) for _, name in scale.ticks), default=0)
    return BOTTOM if _fits(scale) else BOTTOM + min(90, round(longest * CHARACTER * 0.6))


def _fits(scale: Scale) -> bool:
    band = (WIDTH - LEFT - RIGHT) / max(1, len(scale.ticks))
    return all(len(name) * CHARACTER <= band - 4 for _, name in scale.ticks)


def figure(panel: Panel, body: str, label: str, look: str = "") -> str:
    """Return a panel with what is drawn in it as one SVG element.

    Args:
        panel: Its frame.
        body: SVG elements.
        label: What it shows, for those who do not see it.
        look: Further classes.
    """
    return (
        f'<svg class="chart {look}" viewBox="0 0 {WIDTH} {panel.height}" role="group" '
        f'aria-label="{escape(label)}">{drawn(panel, body)}</svg>'
    )


def drawn(panel: Panel, body: str) -> str:
    """Return a panel's frame with what is in it, as SVG elements."""
    return f"{''.join(_frame(panel))}{body}"


def _frame(panel: Panel) -> Iterator[str]:
    end = WIDTH - panel.right
    yield f'<text class="title" x="4" y="16">{escape(panel.title)}</text>'
    for value, words in panel.y.ticks:
        y = panel.up(value)
        yield f'<path class="grid" d="M{LEFT} {y}H{end}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{escape(words)}</text>'
    yield f'<path class="axis" d="M{LEFT} {HEIGHT}H{end}"/>'
    level = _fits(panel.x)
    for value, words in panel.x.ticks:
        x = panel.across(value)
        yield f'<path class="axis" d="M{x} {HEIGHT}v4"/>'
        if level or not panel.x.named:
            yield f'<text class="tick" x="{x}" y="{HEIGHT + 18}" text-anchor="middle">{escape(words)}</text>'
        else:
            yield (
                f'<text class="tick" transform="translate({x + 4} {HEIGHT + 14}) rotate(-35)" '
                f'text-anchor="end">{escape(cut(words, 24))}</text>'
            )
    middle = (LEFT + end) / 2
    yield (
        f'<text class="below" x="{middle}" y="{panel.height - 6}" text-anchor="middle">'
        f"{escape(panel.below)}</text>"
    )


def cut(text: str, length: int) -> str:
    """Shorten a text in its middle."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[: length - 1 - half]}…{text[-half:]}"


def mark(
    place: tuple[float, float], *, shape: int, colour: int, point: int, title: str, look: str = ""
) -> str:
    """Return one point.

    Args:
        place: In pixels.
        shape: Which of SHAPES.
        colour: Which of report.css.
        point: Its number on the page; what has the same number answers together.
        title: What is known of it.
        look: Further classes: `pareto` draws a ring around it.
    """
    ring = '<circle class="ring" r="9"/>' if "pareto" in look else ""
    return (
        f'<g class="mark c{colour} {look}" data-point="{point}" '
        f'transform="translate({place[0]} {place[1]})"><title>{escape(title)}</title>{ring}'
        f'<circle class="reach" r="11"/><path class="shape" d="{SHAPES[shape]}"/></g>'
    )


def polyline(places: Sequence[tuple[float, float]], look: str, more: str = "") -> str:
    """Return a line through places; one that is nan breaks it."""
    text, pen = "", "M"
    for x, y in places:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        text += f"{pen}{x:g} {y:g}"
        pen = "L"
    return f'<path class="{look}" d="{text}"{more}/>' if text else ""


def apart(places: Sequence[float], least: float, highest: float) -> list[float]:
    """Move labels apart: the same order, at least so far from each other, none below `highest`."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + least)
    over = max((moved[i] for i in order[-1:]), default=0) - highest
    if over > 0:
        moved[order[-1]] -= over
        for after, before in itertools.pairwise(order[::-1]):
            moved[before] = min(moved[before], moved[after] - least)
    return moved
