"""The page of one run: what was trained, how it went, where it is wrong, and what to type next."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from html import escape

from tlcompile.report.charts import (
    HEIGHT,
    TOP,
    Panel,
    apart,
    figure,
    number_scale,
    polyline,
    whole_scale,
)
from tlcompile.report.page import (
    chart_grid,
    command,
    details,
    facts,
    interval,
    is_share,
    page,
    percent,
    section,
    shown_value,
    table,
)
from tlcompile.report.pages import Output, RunData, SplitScore
from tlcompile.report.predicted import predicted_sections

SHOWN = 20  # classes, up to which a confusion matrix can be read on a page
LABELS = 62  # room for "validation" beside a line
BESIDE = 8  # classes, up to which the matrix and their scores stand beside each other
LEVEL = 50  # characters of all names, up to which they stand level above a matrix
WORDS = {"multilabel": "Labels"}  # else classes
SPLITS = {"train": "training", "val": "validation"}


def run_page(data: RunData) -> str:
    """Return the page of a run."""
    parts = [
        _head(data),
        section("Curves", _curves(data)),
        section("Scores", _scores(data.scores), lead="Of the best epoch's weights."),
        *(_output(output) for output in data.outputs),
        *predicted_sections(data.predicted, data.predicted_note),
        section("Model", _model(data)),
        section("Rates and phases", table(*data.rates)),
        section("What ran", facts(data.origin) + details("recipe.yaml", _text(data.recipe))),
        section("Commands", "".join(command(one) for one in (data.reproduce, *data.following))),
    ]
    return page(data.name, parts, graph=bool(data.figures))


def run_text(data: RunData) -> str:
    """Return in short what the page says."""
    width = max(len(word) for word, _ in data.facts) + 2
    lines = [f"{data.name}: {data.headline}", ""]
    lines += [f"{word:<{width}}{value}" for word, value in data.facts]
    if data.reading:
        lines += ["", f"curves: {_reading(*data.reading)}"]
    lines += ["", *(_score_line(score) for score in data.scores)]
    lines += [_worst(output) for output in data.outputs if output.classes]
    lines += ["", data.reproduce.text]
    return "\n".join(lines)


def _head(data: RunData) -> str:
    return (
        f'<header><p class="kind">run</p><h1>{escape(data.name)}</h1>'
        f'<p class="headline">{escape(data.headline)}</p>{facts(data.facts)}</header>'
    )


def _reading(verdict: str, evidence: str, advice: str) -> str:
    return f"{verdict} ({evidence}){f'; {advice}' if advice else ''}"


def _curves(data: RunData) -> str:
    if not data.epochs:
        return ""
    told = ""
    if data.reading:
        verdict, evidence, advice = data.reading
        more = f" {advice[0].upper()}{advice[1:]}." if advice else ""
        told = (
            f'<p class="reading"><strong>{escape(verdict[0].upper() + verdict[1:])}:</strong> '
            f"{escape(evidence)}.{escape(more)}</p>"
        )
    return told + chart_grid([_curve(data, name) for name in _drawn(data)])


def _drawn(data: RunData) -> list[str]:
    """Return the loss, the main metric of each output, and what the best epoch is chosen by."""
    both = [c.removeprefix("train/") for c in data.epochs[0].values if c.startswith("train/")]
    there = {
        column.partition("/")[2]
        for epoch in data.epochs
        for column, value in epoch.values.items()
        if math.isfinite(value)
    }
    names = dict.fromkeys(["loss", *both, data.monitor.partition("/")[2]])
    return [name for name in names if name in there]


def _curve(data: RunData, name: str) -> str:
    """Return one value over the epochs: training and validation, phases, the best epoch."""
    columns = [f"{split}/{name}" for split in SPLITS]
    series = {c: [epoch.values.get(c, math.nan) for epoch in data.epochs] for c in columns}
    known = {c: values for c, values in series.items() if any(map(math.isfinite, values))}
    numbers = [epoch.number for epoch in data.epochs]
    share = is_share(name)
    every = [value for values in known.values() for value in values]
    y = number_scale(
        every, percent=share, log=False if share else None, low=0.0, high=1.0 if share else None
    )
    panel = Panel(name, "epoch", whole_scale(numbers), y, right=LABELS + 8)
    body = [*_phases(panel, data), *_best(panel, data, known)]
    ends = []
    for column, values in known.items():
        split = column.partition("/")[0]
        places = [panel.at(n, v) for n, v in zip(numbers, values, strict=True)]
        body.append(polyline(places, f"curve {split}"))
        body += [
            f'<circle class="dot {split}" cx="{x}" cy="{at}" r="2.6"><title>'
            f"{SPLITS[split]} {escape(name)}, epoch {number}: {shown_value(name, value)}</title></circle>"
            for number, value, (x, at) in zip(numbers, values, places, strict=True)
            if math.isfinite(value)
        ]
        ends.append((split, *next(p for p in reversed(places) if math.isfinite(p[1]))))
    heights = apart([y for _, _, y in ends], 14, HEIGHT - 4)
    body += [
        f'<text class="label {split}" x="{x + 7}" y="{height + 4}">{SPLITS[split]}</text>'
        for (split, x, _), height in zip(ends, heights, strict=True)
    ]
    return figure(panel, "".join(body), f"{name} over the epochs, training and validation")


def _phases(panel: Panel, data: RunData) -> Iterator[str]:
    """Yield a band for every second phase, and its name, where there are several."""
    groups = [list(g) for _, g in itertools.groupby(data.epochs, key=lambda e: e.phase)]
    if len(groups) < 2:
        return
    for place, epochs in enumerate(groups):
        left = panel.across(max(epochs[0].number - 0.5, panel.x.low))
        right = panel.across(min(epochs[-1].number + 0.5, panel.x.high))
        if place % 2:
            yield (
                f'<rect class="band" x="{left}" y="{TOP}" width="{right - left:.1f}" '
                f'height="{HEIGHT - TOP}"/>'
            )
        yield f'<text class="phase" x="{left + 4}" y="{TOP - 4}">{escape(epochs[0].phase)}</text>'


def _best(panel: Panel, data: RunData, known: dict[str, list[float]]) -> Iterator[str]:
    x = panel.across(data.best)
    yield f'<path class="best" d="M{x} {TOP + 2}V{HEIGHT}"/>'
    side = "end" if panel.x.at(data.best) > 0.6 else "start"
    at = x - 5 if side == "end" else x + 5
    # On the side where no line runs: curves that fall are low at their end, those that rise high.
    values = next(iter(known.values()))
    falls = values[-1] < values[0]
    height = TOP + 14 if falls else HEIGHT - 8
    yield f'<text class="note" x="{at}" y="{height}" text-anchor="{side}">best: epoch {data.best}</text>'


def _scores(scores: Sequence[SplitScore]) -> str:
    names = list(dict.fromkeys(name for score in scores for name in score.values))
    judged = any(score.interval for score in scores)
    first = [name for name in ("accuracy",) if name in names]
    rest = [name for name in names if name not in first]
    columns = ("split", "n", *first, *(["95 % interval"] if judged else []), *rest)
    rows = []
    for score in scores:
        cells = {name: shown_value(name, score.values.get(name)) for name in names}
        cells |= {"split": _split(score.split), "n": f"{score.count:,}"}
        cells |= {"95 % interval": interval(score.interval)}
        rows.append([cells[column] for column in columns])
    return table(columns, rows)


def _split(name: str) -> str:
    return {**SPLITS, "test": "test (used once)"}.get(name, name)


def _score_line(score: SplitScore) -> str:
    values = ", ".join(f"{name} {shown_value(name, v)}" for name, v in score.values.items())
    ends = f", 95 % interval {interval(score.interval)}" if score.interval else ""
    return f"{score.split:<6} {values} (n = {score.count}{ends})"


def _worst(output: Output) -> str:
    judged = [row for row in output.classes if row.recall is not None]
    worst = sorted(judged, key=lambda row: row.recall or 0)[:3]
    told = ", ".join(f"{row.name} {percent(row.recall)} of {row.count}" for row in worst)
    return f"{output.name or 'classes'}: lowest recall {told}"


def _output(output: Output) -> str:
    word = WORDS.get(output.task, "Classes")
    title = f"{word}: {output.name}" if output.name else word
    classes = _classes(output)
    if len(output.classes) > SHOWN:
        many = f"all {len(output.classes)} {word.lower()}, the lowest recall first"
        classes = details(many, classes)
    matrix = _matrix(output) if len(output.classes) <= SHOWN else _confusions(output)
    look = "pair" if len(output.classes) <= BESIDE else "pair stacked"
    return section(title, f'<div class="{look}"><div>{matrix}</div><div>{classes}</div></div>')


def _classes(output: Output) -> str:
    rows, pixels = output.classes, output.task == "segmentation"
    ordered = sorted(rows, key=lambda r: -1 if r.recall is None else r.recall)
    order = ordered if len(rows) > SHOWN else rows
    cells = [
        (
            row.name, f"{row.count:,}", f"{row.correct:,}",
            percent(row.recall), percent(row.precision), percent(row.f1),
            *([percent(iou(row.f1))] if pixels else []),
        )
        for row in order
    ]  # fmt: skip
    counted = ("pixels" if pixels else "n", "correct", "recall", "precision", "F1")
    return table((_one(output), *counted, *(["IoU"] if pixels else [])), cells)


def _one(output: Output) -> str:
    return "label" if output.task == "multilabel" else "class"


def iou(f1: float | None) -> float | None:
    """Return the intersection over union of which F1 is a function: I/U = F1 / (2 - F1)."""
    return None if f1 is None else f1 / (2 - f1)


def _matrix(output: Output) -> str:
    """Return the confusion matrix as a table; a cell's shade is its share of the row."""
    if not output.confusion:
        return ""
    names = [row.name for row in output.classes]
    head = "".join(
        f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in names
    )
    pixels = output.task == "segmentation"
    lines = []
    for i, row in enumerate(output.confusion):
        cells = "".join(_cell(names, row, i, j, shares=pixels) for j in range(len(row)))
        name = escape(names[i])
        lines.append(f'<tr><th scope="row" title="{name}">{name}</th>{cells}</tr>')
    what = "what a pixel is, in percent" if pixels else "what an image is"
    look = "matrix turned" if sum(map(len, names)) > LEVEL else "matrix"
    return (
        f'<p class="caption">A row is {what}, a column what it is taken for.</p>'
        '<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix">'
        f'<table class="{look}"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(names: Sequence[str], row: Sequence[int], i: int, j: int, *, shares: bool) -> str:
    """Return a cell with its count; of pixels, of which there are many, with its share of the row."""
    count, total = row[j], sum(row)
    shade = math.ceil(5 * count / total) if total else 0  # 0: none at all
    right = " right" if i == j else ""
    title = f"{names[i]} taken for {names[j]}: {count:,} of {total:,}"
    shown = f"{100 * count / total:.1f}" if shares and total else f"{count}"
    return f'<td class="s{shade}{right}" title="{escape(title)}">{shown if count else "·"}</td>'


def _confusions(output: Output) -> str:
    """Return the pairs that are confused most, where a matrix would be too large."""
    names = [row.name for row in output.classes]
    pairs = sorted(
        (
            (count, names[i], names[j], sum(row))
            for i, row in enumerate(output.confusion)
            for j, count in enumerate(row)
            if i != j and count
        ),
        key=lambda pair: -pair[0],
    )
    rows = [
        (true, taken, f"{count:,}", f"{total:,}") for count, true, taken, total in pairs[:SHOWN]
    ]
    what = "pixels" if output.task == "segmentation" else "images"
    return table(("is", "taken for", what, "of"), rows)


def _model(data: RunData) -> str:
    proofs = "".join(f"<p><strong>Freeze proof:</strong> {escape(p)}.</p>" for p in data.proofs)
    note = f'<p class="lead">{escape(data.graph_note)}</p>' if data.graph_note else ""
    return proofs + note + "\n".join(data.figures)


def _text(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>" if text else ""
