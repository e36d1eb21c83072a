"""One self-contained HTML page, or one figure of a page, with the graph of a compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import Summary
from tlcompile.report.drawing import MEANINGS, cells_of, draw
from tlcompile.report.layout import arrange
from tlcompile.report.measures import CELL, HEAD
from tlcompile.report.regions import build_regions

GENERATOR = '<meta name="generator" content="tlcompile">'
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{generator}
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem; }}
h1 {{ font-size: 1.4rem; margin: 0; }}
h2 {{ font-size: 1.1rem; margin: .5rem 0; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #16181c; color: #eee; }} }}
@media print {{ body {{ margin: 0; background: #fff; color: #000; }} }}
{style}</style>
</head>
<body>
<h1>{title}</h1>
{figures}
<script>
{script}</script>
</body>
</html>
"""


def graph_page(summary: Summary, boundary: Sequence[Boundary], title: str) -> str:
    """Return a page with the graph of one model."""
    return page_of(title, [graph_figure(summary, boundary, summary.model)])


def page_of(title: str, figures: Sequence[str]) -> str:
    """Return a page that needs no network: figures with their style and their script."""
    shown = "\n".join(figures)
    return _PAGE.format(
        title=escape(title), generator=GENERATOR, style=style(), figures=shown, script=script()
    )


def graph_figure(summary: Summary, boundary: Sequence[Boundary], title: str) -> str:
    """Return the drawing with its words, legend and controls, for `page_of`.

    Regions with an edit or the freeze point in them start open. Without JavaScript they stay so.
    """
    layout = arrange(build_regions(summary, boundary))
    return f"""<figure class="graph-figure">
<figcaption><h2>{escape(title)}</h2>{_words(summary, boundary)}</figcaption>
{_LEGEND}
<div class="graph-controls" hidden>
<button type="button" class="graph-expand">expand all</button>
<button type="button" class="graph-collapse">collapse all</button>
<input type="search" class="graph-search" placeholder="find a vertex, Enter: the next"
 aria-label="find a vertex">
<span class="graph-count" role="status"></span>
</div>
<div class="graph-picture">
{draw(layout, title)}
</div>
<output class="graph-about"></output>
</figure>"""


def style() -> str:
    """Return the style sheet of figures."""
    return _resource("graph.css")


def script() -> str:
    """Return the script of figures."""
    return _resource("graph.js")


def _resource(name: str) -> str:
    return resources.files("tlcompile.report").joinpath(name).read_text(encoding="utf-8")


def _words(summary: Summary, boundary: Sequence[Boundary]) -> str:
    parts = [f"{len(summary.vertices)} vertices; numbers in boxes are parameters."]
    if boundary:
        num_bytes = sum(tensor.num_bytes for tensor in boundary)
        names = ", ".join(f"{tensor.vertex} {tensor.shape}" for tensor in boundary)
        parts.append(f"Features: {names}, {num_bytes:,} bytes an image.")
    else:
        frozen = any(row.frozen for row in summary.vertices)
        why = "No features are kept" if frozen else "Nothing is frozen"
        parts.append(f"{why}: the whole model runs in every step.")
    hidden = sum(not row.shape.startswith("(") for row in summary.removed)
    if hidden:
        parts.append(f"{hidden} removed vertices that carried no tensor are not drawn.")
    parts += [f"Note: {note}." for note in summary.notes]
    return escape(" ".join(parts))


def _swatch(state: str) -> str:
    rect = f'x="1.5" y="1.5" width="41" height="{HEAD - 3}" rx="5"'
    return (
        f'<svg width="{CELL + 28}" height="{HEAD}" aria-hidden="true"><g class="box is-{state}">'
        f'<rect class="paper" {rect}/><rect class="body" {rect}/>{cells_of((state,), 2)}</g></svg>'
    )


_LEGEND = (
    '<ul class="graph-legend">'
    + "".join(f"<li>{_swatch(state)}{escape(said)}</li>" for state, said in MEANINGS.items())
    + "</ul>"
)
