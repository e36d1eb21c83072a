"""The page of a sweep: charts that answer together, the table of points, what failed, how to redo it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tlcompile.report.encoding import Encoding, encode, number, short_names, value_of
from tlcompile.report.page import (
    command,
    details,
    facts,
    interval,
    metric_words,
    page,
    section,
    shown_value,
    table,
)
from tlcompile.report.pages import Command, SweepData, SweepPoint
from tlcompile.report.sweep_charts import about, best_point, charts, legend, ranked
from tlcompile.report.sweep_curves import caption, small_charts

FEW = 12  # points whose commands are shown at once


def sweep_page(data: SweepData) -> str:
    """Return the page of a sweep."""
    encoding = encode(data)
    drawn = _charts(data, encoding)
    parts = [
        _head(data),
        section("Results", drawn, look="results"),
        section("Curves", small_charts(data), lead=caption(data), look="curves"),
        section("Means over seeds", _means(data, encoding)),
        section("Points", _points(data, encoding), look="points"),
        section("Failed points", _failed(data)),
        _advice(data),
        section("Commands", _commands(data)),
        section("What ran", facts(data.origin)),
    ]
    points = [
        {
            "label": p.label,
            "about": about(data, p),
            "state": p.state,
            "keys": [f"{key}={value_of(p, key)}" for key in encoding.keys],
        }
        for p in data.points
    ]
    return page(data.name, parts, data={"points": points})


def sweep_text(data: SweepData) -> str:
    """Return in short what the page says."""
    lines = [f"{data.name}: {_counts(data)}"]
    best = best_point(data)
    if best is not None:
        lines += ["", f"best  {about(data, data.points[best])}", *_unclear(data, best)]
    lines += [
        f"mean  {mean} of {count} ({low} to {high})  {setting}"
        for setting, mean, low, high, count in _mean_rows(data, encode(data))
    ]
    lines += [f"failed  {p.label}: {p.error}" for p in data.points if p.state == "failed"]
    lines += [data.advice.sentence] if data.advice else []
    lines += list(data.notes)
    return "\n".join([*lines, "", data.command] if data.command else lines)


def _head(data: SweepData) -> str:
    best = best_point(data)
    told = ""
    if best is not None:
        point = data.points[best]
        value = shown_value(data.metric, point.value)
        ends = f", 95 % interval {interval(point.interval)}" if point.interval else ""
        told = (
            f'<p class="headline">{escape(value)} {escape(metric_words(data.metric))} '
            f"(n = {point.count}{ends})</p><p>at <code>{escape(point.label)}</code>, "
            f"the best of {escape(_counts(data))}.</p>"
        )
        told += "".join(f"<p>{escape(line)}</p>" for line in _unclear(data, best))
    notes = "".join(f'<p class="lead">{escape(note)}</p>' for note in data.notes)
    return (
        f'<header><p class="kind">sweep</p><h1>{escape(data.name)}</h1>'
        f"{told or f'<p>{escape(_counts(data))}</p>'}{notes}</header>"
    )


def _counts(data: SweepData) -> str:
    states: dict[str, int] = {}
    for point in data.points:
        states[point.state] = states.get(point.state, 0) + 1
    seconds = sum(point.seconds or 0 for point in data.points)
    others = [f"{count} {state}" for state, count in states.items() if state != "finished"]
    total = f"{len(data.points)} point{'s' if len(data.points) != 1 else ''}"
    return ", ".join([total, *others, f"{seconds:.0f} s of work"])


def _unclear(data: SweepData, best: int) -> list[str]:
    """Say how many points the data do not tell from the best one."""
    low = (data.points[best].interval or (None,))[0]
    if low is None:
        return []
    values = [point.value for point in data.points if point.value is not None]
    near = sum(value >= low for value in values) - 1
    if not near:
        return []
    others = "another point is" if near == 1 else f"{near} other points are"
    return [f"{others.capitalize()} within that interval: these data do not tell them apart."]


def _charts(data: SweepData, encoding: Encoding) -> str:
    drawn = charts(data)
    if not drawn:
        return ""
    keys = "".join(
        f'<li data-filter="{escape(term)}">{symbol}{escape(words)}</li>'
        for term, words, symbol in legend(data)
    )
    shown = f'<ul class="legend">{keys}</ul>' if keys else ""
    return (
        f'{shown}<div class="charts">{"".join(drawn)}</div>'
        '<output class="about" hidden></output>'
        f'<p class="caption">{escape(_caption(data, encoding))}</p>'
    )


def _caption(data: SweepData, encoding: Encoding) -> str:
    several = any(len(group) > 1 for group in encoding.groups(data.points).values())
    spread = (
        "First: every point; the bar is the range over "
        + ("seeds" if encoding.repeats and not encoding.rest else "points that share a place")
        + ", the dash their mean."
        if several
        else "Bars: 95 % intervals."
    )
    names = short_names(encoding.keys)
    rest = ", ".join(names[key] for key in encoding.rest)
    hidden = f" Not told apart here, but in the table: {rest}." if rest else ""
    front = " A ring: no other point is as good for less (single points, not means)."
    return f"{spread}{front}{hidden}"


def _means(data: SweepData, encoding: Encoding) -> str:
    columns = ("setting", f"mean {_metric(data)}", "lowest", "highest", "points")
    return table(columns, _mean_rows(data, encoding))


def _mean_rows(data: SweepData, encoding: Encoding) -> list[tuple[str, ...]]:
    """Return a row for each setting that has several seeds, the best mean first."""
    if not encoding.repeats or encoding.rest:
        return []
    known = [point for point in data.points if point.value is not None]
    names = short_names(encoding.keys)
    rows = []
    for members in encoding.groups(known).values():
        values = [value for i in members if (value := known[i].value) is not None]
        point = known[members[0]]
        kept = {
            k: v
            for k, v in point.overrides.items()
            if k in encoding.keys and k not in encoding.repeats
        }
        setting = " ".join(f"{names[k]}={v}" for k, v in kept.items()) or point.freeze
        rows.append((sum(values) / len(values), setting, values))
    rows.sort(key=lambda row: row[0], reverse=data.rising)
    return [
        (
            setting,
            *(shown_value(data.metric, value) for value in (mean, min(values), max(values))),
            str(len(values)),
        )
        for mean, setting, values in rows
    ]


def _points(data: SweepData, encoding: Encoding) -> str:
    names = short_names(encoding.keys)
    swept = {names[key]: key for key in encoding.keys}
    columns = [
        "#", *swept, *([] if any(k.startswith("freeze") for k in encoding.keys) else ["freeze"]),
        _metric(data), "95 % interval", "n", "best epoch",
        *([] if "lr" in swept else ["lr"]), "trainable", "seconds", "state",
    ]  # fmt: skip
    rows = []
    for index, point in ranked(data):
        cells = {
            "#": (str(index + 1), index + 1),
            "freeze": (point.freeze, None),
            **_measured(data, point),
            **{name: _cell(value_of(point, key)) for name, key in swept.items()},
        }
        rows.append((index, point, [cells[column] for column in columns]))
    right = [
        all(row[2][i][1] is not None or not row[2][i][0] for row in rows)
        for i in range(len(columns))
    ]
    head = "".join(
        f'<th scope="col"{_side(number)}>{escape(name)}</th>'
        for name, number in zip(columns, right, strict=True)
    )
    body = "\n".join(_row(index, point, cells, right) for index, point, cells in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="points">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def _metric(data: SweepData) -> str:
    """Return the metric's name alone: the page has said of which split it is."""
    return data.metric.rpartition("/")[2] or "metric"


def _measured(data: SweepData, point: SweepPoint) -> dict[str, tuple[str, float | None]]:
    """Return the cells of a point by column: what is shown, and the number to sort by."""
    low = point.interval[0] if point.interval else None
    return {
        _metric(data): (shown_value(data.metric, point.value), point.value),
        "95 % interval": (interval(point.interval), low),
        "n": _amount(point.count),
        "best epoch": _amount(point.best_epoch),
        "lr": ("" if point.lr is None else f"{point.lr:g}", point.lr),
        "trainable": _amount(point.trainable),
        "seconds": ("" if point.seconds is None else f"{point.seconds:.1f}", point.seconds),
        "state": (point.state, None),
    }


def _amount(value: int | None) -> tuple[str, float | None]:
    return ("" if value is None else f"{value:,}", value)


def _cell(text: str) -> tuple[str, float | None]:
    return text, float(text) if number(text) else None


def _side(right: bool) -> str:
    return ' class="number"' if right else ""


def _row(
    index: int, point: SweepPoint, cells: Sequence[tuple[str, float | None]], right: Sequence[bool]
) -> str:
    drawn = "".join(
        f"<td{_side(side)}"
        + (f' data-value="{value!r}"' if value is not None else "")
        + f">{escape(text)}</td>"
        for (text, value), side in zip(cells, right, strict=True)
    )
    look = "" if point.state == "finished" else f' class="{"failed" if point.error else "waits"}"'
    return f'<tr data-point="{index}"{look}>{drawn}</tr>'


def _failed(data: SweepData) -> str:
    rows = [(point.label, point.error) for point in data.points if point.error]
    return table(("point", "why"), rows, look="wide")


def _advice(data: SweepData) -> str:
    if data.advice is None:
        return ""
    body = table(*data.advice.table)
    return section("Advice beforehand", body, lead=data.advice.sentence)


def _commands(data: SweepData) -> str:
    why = "The whole sweep; what is finished stays, what is missing or failed runs:"
    again = command(Command(data.command, why)) if data.command else ""
    each = "".join(
        f'<li value="{index + 1}" data-point="{index}">{command(Command(point.command))}</li>'
        for index, point in enumerate(data.points)
        if point.command
    )
    few = len(data.points) <= FEW
    title = "each point alone, by its number in the table"
    return again + details(title, f'<ol class="commands">{each}</ol>' if each else "", shown=few)
