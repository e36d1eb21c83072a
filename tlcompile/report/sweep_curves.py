"""The learning curves of a sweep's points, each in a small chart; all have the same scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tlcompile.report.charts import Scale, number_scale, polyline, whole_scale
from tlcompile.report.encoding import encode, short_names
from tlcompile.report.page import details, is_share, metric_words, shown_value
from tlcompile.report.pages import SweepData, SweepPoint
from tlcompile.report.sweep_charts import ranked

SHOWN = 12  # small charts that are not folded away
WIDE, HIGH = 190, 96  # of a small chart
LEFT, RIGHT, TOP, BOTTOM = 36, 186, 6, 80  # of its frame


@dataclass(frozen=True)
class _Frame:
    """What all small charts have in common."""

    x: Scale
    y: Scale
    best: float

    def at(self, epoch: float, value: float) -> tuple[float, float]:
        """Return where a value lies, in pixels; nan where there is none."""
        across = LEFT + self.x.at(epoch) * (RIGHT - LEFT)
        return round(across, 1), round(BOTTOM - self.y.at(value) * (BOTTOM - TOP), 1)


def small_charts(data: SweepData) -> str:
    """Return a small chart of each point, the best first; nothing where no point has a curve."""
    drawn = [(i, point) for i, point in ranked(data) if len(point.curve) > 1]
    best = ranked(data)[0][1].value if drawn else None
    if best is None:
        return ""
    frame = _frame([point for _, point in drawn], data, best)
    items = [_item(data, frame, i, point) for i, point in drawn]
    lists = [
        f'<ul class="multiples">{"".join(some)}</ul>' if some else ""
        for some in (items[:SHOWN], items[SHOWN:])
    ]
    return lists[0] + details(f"the other {len(items) - SHOWN}", lists[1], look="more")


def caption(data: SweepData) -> str:
    """Say what the small charts show."""
    trained = any(point.train_curve for point in data.points)
    dashed = ", dashed: the same of training" if trained else ""
    return (
        f"{metric_words(data.metric).capitalize()} over the epochs{dashed}; the dot is the best epoch, "
        "the dotted line the best point's value. All have the same scale; the best point comes first."
    )


def _frame(points: Sequence[SweepPoint], data: SweepData, best: float) -> _Frame:
    values = [v for point in points for v in (*point.curve, *point.train_curve)]
    share = is_share(data.metric)
    y = number_scale(
        values, percent=share, log=False if share else None, low=0.0, high=1.0 if share else None
    )
    x = whole_scale(range(1, max(len(point.curve) for point in points) + 1))
    return _Frame(x, y, best)


def _item(data: SweepData, frame: _Frame, index: int, point: SweepPoint) -> str:
    names = short_names(encode(data).keys)
    told = [f"{names.get(key, key)}={value}" for key, value in point.overrides.items()]
    told = told or [point.freeze]
    value = shown_value(data.metric, point.value) or point.state
    label = f"{' '.join(told)}: {metric_words(data.metric)} over the epochs, {value}"
    words = " ".join(f"<span>{escape(word)}</span>" for word in told)
    return (
        f'<li data-point="{index}"><svg class="chart small" viewBox="0 0 {WIDE} {HIGH}" role="img" '
        f'aria-label="{escape(label)}">{_axes(frame)}{_lines(data, frame, point)}</svg>'
        f"<b>{escape(value)}</b> {words}</li>"
    )


def _axes(frame: _Frame) -> str:
    parts = [f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>']
    ticks = frame.y.ticks
    for value, words in dict.fromkeys([*ticks[:1], *ticks[-1:]]):
        y = frame.at(frame.x.low, value)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 3.5}" text-anchor="end">{escape(words)}</text>')
    for value, words in (frame.x.ticks[0], frame.x.ticks[-1]):
        x = round(LEFT + frame.x.at(value) * (RIGHT - LEFT), 1)
        parts.append(f'<text x="{x}" y="{BOTTOM + 13}" text-anchor="middle">{escape(words)}</text>')
    best = frame.at(frame.x.low, frame.best)[1]
    if math.isfinite(best):
        parts.append(f'<path class="reference" d="M{LEFT} {best}H{RIGHT}"/>')
    return "".join(parts)


def _lines(data: SweepData, frame: _Frame, point: SweepPoint) -> str:
    colour = encode(data).colour_of(point)
    val, train = (
        [frame.at(n, v) for n, v in enumerate(curve, 1)]
        for curve in (point.curve, point.train_curve)
    )
    parts = [polyline(train, "learns"), polyline(val, f"judged c{colour}")]
    place = (point.best_epoch or 0) - 1
    if 0 <= place < len(val) and math.isfinite(val[place][1]):
        x, y = val[place]
        parts.append(f'<circle class="dot c{colour}" cx="{x}" cy="{y}" r="3"/>')
    return "".join(parts)
