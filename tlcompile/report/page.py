"""The frame of a page, and what pages are made of: sections, tables, commands. All names escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from tlcompile.report.graph_page import GENERATOR
from tlcompile.report.graph_page import script as graph_script
from tlcompile.report.graph_page import style as graph_style
from tlcompile.report.pages import Command

# The browser itself holds the page to its promise: nothing is fetched, only our scripts run.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{generator}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src {digests}; base-uri 'none'; form-action 'none'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body class="report">
<main>
{body}
</main>
<script type="application/json" id="data">{data}</script>
{scripts}
</body>
</html>
"""


def page(title: str, parts: Iterable[str], *, data: Any = None, graph: bool = False) -> str:
    """Return a page that needs no network and no script to be read.

    Args:
        title: As text.
        parts: As HTML.
        data: For report.js.
        graph: Whether figures of `graph_figure` are among the parts.
    """
    scripts = [script(), *([graph_script()] if graph else [])]
    return _PAGE.format(
        generator=GENERATOR,
        digests=" ".join(f"'sha256-{_digest(text)}'" for text in scripts),
        title=escape(title),
        style=style() + (graph_style() if graph else ""),
        body="\n".join(part for part in parts if part),
        data=as_json(data),
        scripts="\n".join(f"<script>{text}</script>" for text in scripts),
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_json(data: Any) -> str:
    """Return data as JSON that no text in it can end: without `<`, `>` and `&`."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def style() -> str:
    """Return the style sheet of pages."""
    return _resource("report.css")


def script() -> str:
    """Return the script of pages."""
    return _resource("report.js")


def _resource(name: str) -> str:
    return resources.files("tlcompile.report").joinpath(name).read_text(encoding="utf-8")


def section(title: str, body: str, *, lead: str = "", look: str = "") -> str:
    """Return a section with a heading; nothing where it has no body.

    Args:
        title: As text.
        body: As HTML.
        lead: One or two sentences below the heading, as text.
        look: Its classes.
    """
    if not body:
        return ""
    words = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f'<section class="{look}"><h2>{escape(title)}</h2>{words}\n{body}</section>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, look: str = "") -> str:
    """Return a table of text; a column of numbers is right-aligned."""
    cells = [list(row) for row in rows]
    if not cells:
        return ""
    right = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    sides = ['class="number"' if number else "" for number in right]
    head = "".join(
        f'<th scope="col" {side}>{escape(name)}</th>'
        for name, side in zip(columns, sides, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td {side}>{escape(cell)}</td>" for cell, side in zip(row, sides, strict=True))
        + "</tr>"
        for row in cells
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(columns[0])}">'
        f'<table class="{look}"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or (cell[0] == "-" and cell[1:2].isdigit())


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return words with their values, as a list of definitions."""
    known = [(word, value) for word, value in pairs if value]
    lines = "".join(f"<dt>{escape(word)}</dt><dd>{escape(value)}</dd>" for word, value in known)
    return f'<dl class="facts">{lines}</dl>' if known else ""


def command(one: Command) -> str:
    """Return a command to copy, and why one would type it."""
    why = f'<p class="why">{escape(one.why)}</p>' if one.why else ""
    return f'<div class="command">{why}<pre><code>{escape(one.text)}</code></pre></div>'


def details(title: str, body: str, *, shown: bool = False, look: str = "") -> str:
    """Return what is folded away until it is wanted; on paper it is open, unless it is `more`."""
    state = " open" if shown else ""
    head = f'<details class="{look}"{state}><summary>{escape(title)}</summary>'
    return f"{head}{body}</details>" if body else ""


def chart_grid(charts: Sequence[str], most: int = 6) -> str:
    """Return charts beside each other; those behind the first few are folded away."""
    grids = [
        f'<div class="charts">{"".join(some)}</div>' if some else ""
        for some in (charts[:most], charts[most:])
    ]
    return grids[0] + details(f"{len(charts) - most} more", grids[1])


def percent(value: float | None, digits: int = 1) -> str:
    """Word a share: '92.8 %'; nothing where there is none."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def interval(ends: tuple[float, float] | None) -> str:
    """Word the 95 % interval of an accuracy: '87.6 to 95.9'."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends else ""


def metric_words(column: str) -> str:
    """Word a column of metrics.csv: 'val/accuracy' is 'validation accuracy'."""
    split, _, name = column.partition("/")
    long = {"val": "validation", "train": "training", "test": "test"}.get(split)
    return f"{long} {name}" if long and name else column


def is_share(column: str) -> bool:
    """Tell whether a metric is written in percent."""
    return column.rpartition("/")[2] == "accuracy"


def shown_value(column: str, value: float | None) -> str:
    """Word a metric's value."""
    if value is None:
        return ""
    return percent(value) if is_share(column) else f"{value:.4g}"
