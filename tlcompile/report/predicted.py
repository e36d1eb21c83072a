"""What a model says of single images, on a run's page: images, masks, numbers true and predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tlcompile.report.charts import Panel, figure, number_scale, polyline
from tlcompile.report.page import chart_grid, section
from tlcompile.report.pages import Predicted, Scatter, Tile

WHAT = ("image", "its mask", "predicted mask")


def predicted_sections(predicted: Sequence[Predicted], note: str) -> list[str]:
    """Return a section for each output; a note alone where nothing is shown."""
    if note:
        return [section("Single images", f'<p class="lead">{escape(note)}</p>')]
    return [_section(one) for one in predicted]


def _section(one: Predicted) -> str:
    drawn = chart_grid([scatter_chart(scatter) for scatter in one.scatters])
    tiles = "\n".join(map(_tile, one.tiles))
    look = "tiles masks" if one.colours else "tiles"
    shown = f'<ul class="{look}">{tiles}</ul>' if tiles else ""
    lead = f'<p class="lead of-tiles">{escape(one.lead)}</p>'
    return section(one.title, f"{drawn}{lead}{_legend(one.colours)}{shown}")


def scatter_chart(scatter: Scatter) -> str:
    """Draw predicted against true numbers; on the dashed line both are equal."""
    values = [value for pair in scatter.points for value in pair]
    scale = number_scale(values, log=False)
    few = len(scatter.points) < scatter.count
    drawn = f"{len(scatter.points):,} of {scatter.count:,}" if few else f"{scatter.count:,}"
    error = f"mean absolute error {scatter.error:.4g}, {drawn} images"
    panel = Panel(f"{scatter.name}: predicted", f"true; {error}", scale, scale)
    line = [panel.at(end, end) for end in (scale.low, scale.high)]
    # One path of dots: a thousand circles would be ten times as long.
    known = (pair for pair in scatter.points if all(map(math.isfinite, pair)))
    dots = "".join(f"M{x:g} {y:g}h0" for x, y in (panel.at(*pair) for pair in known))
    body = f'{polyline(line, "equal")}<path class="cloud" d="{dots}"/>'
    return figure(panel, body, f"{scatter.name}: predicted against true, {error}")


def _legend(colours: Sequence[tuple[str, str]]) -> str:
    if not colours:
        return ""
    chips = "".join(
        '<li><svg class="chip" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
        f'<rect width="16" height="16" fill="{escape(colour)}"/></svg>{escape(name)}</li>'
        for name, colour in colours
    )
    return f'<ul class="legend">{chips}</ul>'


def _tile(one: Tile) -> str:
    look = ' class="pixelated"' if one.pixelated else ""
    alt = f"{one.true}, said {one.said}"
    images = "".join(
        f'<img src="{escape(uri)}" alt="{escape(alt if not i else WHAT[i])}" '
        f'title="{escape(one.name if not i else WHAT[i])}"{look}>'
        for i, uri in enumerate(one.images)
    )
    images = f'<div class="trio">{images}</div>' if len(one.images) > 1 else images
    sure = f", {escape(one.sure)}" if one.sure else ""
    said = f"<span>said <b>{escape(one.said)}</b>{sure}</span>" if one.said else ""
    true = f"<span>is {escape(one.true)}</span>" if one.said else f"<span>{escape(one.true)}</span>"
    return f"<li>{images}{said}{true}</li>"
