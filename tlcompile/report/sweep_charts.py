"""A sweep's charts: the metric against the freeze point, seconds and parameters; the curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from tlcompile.report.charts import (
    COLOURS,
    HEIGHT,
    RIGHT,
    SHAPES,
    WIDTH,
    Panel,
    Scale,
    apart,
    cut,
    drawn,
    figure,
    mark,
    number_scale,
    polyline,
    room_below,
    whole_scale,
)
from tlcompile.report.encoding import Encoding, encode, short_names
from tlcompile.report.graph_page import GENERATOR
from tlcompile.report.page import interval, is_share, metric_words, shown_value, style
from tlcompile.report.pages import SweepData, SweepPoint

LABEL = 15  # characters of such a name
LABELLED = 4  # series, up to which each has its name beside its last mean
Drawn = tuple[Panel, str, str]  # a panel, what is in it, what it shows


def charts(data: SweepData) -> list[str]:
    """Return the charts as SVG elements; none where no point is finished."""
    return [figure(panel, body, label, "interactive") for panel, body, label in _all(data)]


def charts_svg(data: SweepData) -> str:
    """Return the charts as one SVG file, two beside each other, with its own style."""
    panels = _all(data)
    counts = {f"{point.count:,}" for point in data.points if point.count}
    images = f", n = {counts.pop()}" if len(counts) == 1 else ""
    title = f"{data.name}: {metric_words(data.metric)} of {len(data.points)} points{images}"
    gap, head = 28, 40
    wide = WIDTH * 2 + gap
    keys = _svg_legend(data, wide)
    tall = max((panel.height for panel, _, _ in panels), default=0) + 22
    head += 22 if keys else 0
    height = head + tall * ((len(panels) + 1) // 2)
    parts = [
        f'<g transform="translate({(i % 2) * (WIDTH + gap)} {head + (i // 2) * tall})">'
        f"{drawn(panel, body)}</g>"
        for i, (panel, body, _) in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 0 {wide + 32} {height}" '
        f'width="{wide + 32}" height="{height}" class="report chart"><!-- {GENERATOR} -->'
        f"<title>{escape(title)}</title><style>{style()}</style>"
        f'<rect class="sheet" x="-16" width="{wide + 32}" height="{height}"/>'
        f'<text class="heading" x="4" y="24">{escape(title)}</text>{keys}{"".join(parts)}</svg>\n'
    )


def _all(data: SweepData) -> list[Drawn]:
    known = [i for i, point in enumerate(data.points) if point.value is not None]
    if not known:
        return []
    encoding = encode(data)
    y = _metric_scale(data)
    bottom = room_below(encoding.scale())
    words = metric_words(data.metric)
    found = [_depth(data, encoding, known, y, bottom)]
    for below, cost, unit in _COSTS:
        if any(cost(data.points[i]) for i in known):
            panel, body = _cost(data, encoding, known, (y, below, cost, unit))
            found.append((panel, body, f"{words} against {below}"))
    if any(len(data.points[i].curve) > 1 for i in known):
        found.append(_curves(data, encoding, known, bottom))
    return found


def _seconds(point: SweepPoint) -> float | None:
    return point.seconds


def _trainable(point: SweepPoint) -> float | None:
    return point.trainable


_COSTS = (("seconds of a point", _seconds, "s"), ("trainable parameters", _trainable, ""))


def _metric_scale(data: SweepData) -> Scale:
    ends = [end for point in data.points for end in (point.interval or ())]
    values = [point.value for point in data.points if point.value is not None]
    share = is_share(data.metric)
    whole = 1.0 if share else None
    groups = encode(data).groups(data.points).values()
    several = any(len(members) > 1 for members in groups)
    inside = [] if several else ends  # the ranges over seeds are drawn instead
    return number_scale(
        [*values, *inside], percent=share, log=False if share else None, low=0.0, high=whole
    )


def _value(data: SweepData, index: int) -> float:
    value = data.points[index].value
    assert value is not None
    return value


def _depth(
    data: SweepData, encoding: Encoding, known: Sequence[int], y: Scale, bottom: int
) -> Drawn:
    """Draw the metric against the freeze point: each point, the range over seeds, the means."""
    points = [data.points[i] for i in known]
    groups = encoding.groups(points)
    several = any(len(members) > 1 for members in groups.values())
    series = sorted({(colour, shape) for _, colour, shape in groups})
    names = [_series_name(encoding, *one) for one in series]
    told_apart = len({cut(name, LABEL) for name in names}) == len(names)
    labelled = 1 < len(series) <= LABELLED and told_apart
    room = max((len(name) for name in names), default=0) * 6.4 + 17 if labelled else RIGHT
    panel = Panel(
        metric_words(data.metric), encoding.across, encoding.scale(), y, bottom, min(110, int(room))
    )
    slot = _slot(panel, len(series))
    under: list[str] = []
    over: list[str] = []
    labels = []
    for number_of, one in enumerate(series):
        shift = (number_of - (len(series) - 1) / 2) * slot
        means = []
        for (_, *of), members in sorted(
            groups.items(), key=lambda g: encoding.right(points[g[1][0]])
        ):
            if tuple(of) != one:
                continue
            x = panel.across(encoding.right(points[members[0]])) + shift
            values = [_value(data, known[m]) for m in members]
            mean = sum(values) / len(values)
            means.append((x, panel.up(mean)))
            ends = None if several else points[members[0]].interval
            under += _spread(panel, x, ends, values, (slot, one[0]))
            step = min(slot / (len(members) + 1), 9) if len(members) > 1 else 0
            for order, member in enumerate(members):
                at = x + (order - (len(members) - 1) / 2) * step
                over.append(
                    _mark(data, encoding, known[member], (round(at, 1), panel.up(values[order])))
                )
        under.insert(0, polyline(means, f"means c{one[0]}"))
        labels.append((means[-1], one[0], names[number_of]))
    body = [*under, *over, *(_labels(labels) if labelled else [])]
    return panel, "".join(body), f"{metric_words(data.metric)} against the {encoding.across}"


def _slot(panel: Panel, series: int) -> float:
    """Return how far apart series are drawn at one place, in pixels."""
    if not panel.x.named:
        return 0
    band = (WIDTH - 60 - panel.right) / max(1, len(panel.x.ticks))
    return min(26, 0.8 * band / max(1, series))


def _spread(
    panel: Panel,
    x: float,
    ends: tuple[float, float] | None,
    values: Sequence[float],
    look: tuple[float, int],
) -> Iterator[str]:
    """Yield the range over seeds with its mean; of one point its 95 % interval."""
    slot, colour = look
    if len(values) > 1:
        low, high, mean = min(values), max(values), sum(values) / len(values)
        half = max(5, min(slot, 24) / 2 - 1)
        yield f'<path class="range c{colour}" d="M{x:g} {panel.up(low)}V{panel.up(high)}"/>'
        yield f'<path class="mean c{colour}" d="M{x - half:g} {panel.up(mean)}H{x + half:g}"/>'
    elif ends:
        low, high = ends
        yield f'<path class="whisker c{colour}" d="M{x:g} {panel.up(low)}V{panel.up(high)}"/>'


def _labels(labels: Sequence[tuple[tuple[float, float], int, str]]) -> Iterator[str]:
    """Yield the name of each series beside its last mean."""
    heights = apart([y for (_, y), _, _ in labels], 14, HEIGHT - 4)
    right = max(x for (x, _), _, _ in labels) + 17
    for (_, colour, name), height in zip(labels, heights, strict=True):
        words = escape(cut(name, LABEL))
        yield f'<text class="label c{colour}" x="{right:g}" y="{height + 4:g}">{words}</text>'


def _series_name(encoding: Encoding, colour: int, shape: int) -> str:
    names = short_names(encoding.keys)
    parts = []
    if encoding.colour:
        parts.append(f"{names[encoding.colour]} {encoding.colours[colour] or 'default'}")
    if encoding.shape and encoding.shape != encoding.colour:
        parts.append(f"{names[encoding.shape]} {encoding.shapes[shape] or 'default'}")
    return ", ".join(parts)


def _cost(
    data: SweepData,
    encoding: Encoding,
    known: Sequence[int],
    what: tuple[Scale, str, Callable[[SweepPoint], float | None], str],
) -> tuple[Panel, str]:
    """Draw the metric against a cost, with the points that no other beats in both."""
    y, below, cost, unit = what
    there = {i: float(found) for i in known if (found := cost(data.points[i])) is not None}
    title = metric_words(data.metric)
    scale = number_scale(there.values(), unit=unit)
    panel = Panel(title, below, scale, y, bottom=room_below(encoding.scale()))
    best = pareto([(there[i], _value(data, i)) for i in there], rising=data.rising)
    front = [list(there)[place] for place in best]
    corners = [panel.at(there[i], _value(data, i)) for i in front]
    steps = [c for a, b in itertools.pairwise(corners) for c in (a, (b[0], a[1]))]
    body = [polyline([*steps, *corners[-1:]], "front")]
    for i in sorted(there, key=lambda i: i in front):  # those of the front lie above
        look = "pareto" if i in front else ""
        body.append(_mark(data, encoding, i, panel.at(there[i], _value(data, i)), look))
    return panel, "".join(body)


def pareto(points: Sequence[tuple[float, float]], *, rising: bool) -> list[int]:
    """Return the places of points that no other equals or beats in cost and value, by cost.

    Args:
        points: (cost, value); a lower cost is better.
        rising: Whether a higher value is better.
    """
    sign = -1 if rising else 1
    order = sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1]))
    found: list[int] = []
    best = math.inf
    for i in order:
        value = sign * points[i][1]
        if value < best:
            found.append(i)
            best = value
    return found


def _mark(
    data: SweepData, encoding: Encoding, index: int, place: tuple[float, float], look: str = ""
) -> str:
    point = data.points[index]
    return mark(
        place, shape=encoding.shape_of(point), colour=encoding.colour_of(point), point=index,
        title=about(data, point), look=look,
    )  # fmt: skip


def about(data: SweepData, point: SweepPoint) -> str:
    """Say in one line what is known of a point."""
    value = shown_value(data.metric, point.value) if point.value is not None else point.state
    ends = f" (n = {point.count}, {interval(point.interval)})" if point.interval else ""
    parts = [f"{value}{ends}", point.label or point.freeze]
    parts += [f"freeze {point.freeze}"] if "freeze" not in point.label else []
    parts += [f"lr {point.lr:g}"] if point.lr is not None else []
    parts += [f"{point.trainable:,} train"] if point.trainable is not None else []
    parts += [f"{point.seconds:.1f} s"] if point.seconds is not None else []
    parts += [point.error] if point.error else []
    return " · ".join(parts)


def _curves(data: SweepData, encoding: Encoding, known: Sequence[int], bottom: int) -> Drawn:
    """Draw the metric over the epochs of every point; the best one above the others."""
    curves = {i: data.points[i].curve for i in known if len(data.points[i].curve) > 1}
    longest = max(map(len, curves.values()))
    share = is_share(data.metric)
    y = number_scale(
        [value for curve in curves.values() for value in curve],
        percent=share, log=False if share else None, low=0.0, high=1.0 if share else None,
    )  # fmt: skip
    title = f"{metric_words(data.metric)} over the epochs"
    panel = Panel(title, "epoch", whole_scale(range(1, longest + 1)), y, bottom)
    best = best_point(data)
    body = []
    for i in sorted(curves, key=lambda i: i == best):
        places = [panel.at(n, v) for n, v in enumerate(curves[i], 1)]
        look = "course is-best" if i == best else "course"
        colour = encoding.colour_of(data.points[i])
        body.append(polyline(places, f"{look} c{colour}", f' data-point="{i}"'))
    return panel, "".join(body), f"{title}, every point; the best one is drawn thicker"


def best_point(data: SweepData) -> int | None:
    """Return the place of the best point; None where none has a value."""
    known = [(p.value, -i) for i, p in enumerate(data.points) if p.value is not None]
    if not known:
        return None
    sign = 1 if data.rising else -1
    return -max(known, key=lambda pair: (sign * pair[0], pair[1]))[1]


def ranked(data: SweepData) -> list[tuple[int, SweepPoint]]:
    """Return points with their numbers, the best first; those without a value last."""
    sign = -1 if data.rising else 1
    return sorted(
        enumerate(data.points),
        key=lambda pair: (pair[1].value is None, sign * (pair[1].value or 0)),
    )


def legend(data: SweepData) -> list[tuple[str, str, str]]:
    """Return (`key=value`, its words, its symbol as SVG) of each colour and symbol."""
    return [
        (f"{key}={value}", f"{name} {value or '(default)'}", _symbol(colour, shape))
        for key, name, value, colour, shape in _entries(encode(data))
    ]


def _entries(encoding: Encoding) -> Iterator[tuple[str, str, str, int, int]]:
    names = short_names(encoding.keys)
    if encoding.colour:
        same = encoding.shape == encoding.colour
        for i, value in enumerate(encoding.colours):
            yield encoding.colour, names[encoding.colour], value, i, i if same else 0
    if encoding.shape and encoding.shape != encoding.colour:
        for i, value in enumerate(encoding.shapes):
            yield encoding.shape, names[encoding.shape], value, COLOURS, i


def _symbol(colour: int, shape: int) -> str:
    return (
        '<svg class="chart symbol" viewBox="-8 -8 16 16" width="16" height="16" aria-hidden="true">'
        f'<g class="mark c{colour}"><path class="shape" d="{SHAPES[shape]}"/></g></svg>'
    )


def _svg_legend(data: SweepData, wide: int) -> str:
    parts, x = [], 10.0
    for _, name, value, colour, shape in _entries(encode(data)):
        words = f"{name} {value or '(default)'}"
        if x + len(words) * 7 > wide:
            break
        parts.append(
            f'<g class="mark c{colour}" transform="translate({x:g} 46)"><path class="shape" '
            f'd="{SHAPES[shape]}"/></g><text class="tick" x="{x + 10:g}" y="50">{escape(words)}</text>'
        )
        x += 30 + len(words) * 7
    return "".join(parts)
