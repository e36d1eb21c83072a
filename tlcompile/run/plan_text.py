"""The plan on the terminal and in plan.txt: a table of vertices, a table of rates, a few lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from tlcompile.errors.base import listed
from tlcompile.model.compiled import VertexRow
from tlcompile.recipe.schema import Recipe
from tlcompile.run.plan import Plan
from tlcompile.run.rates import RateRow
from tlcompile.run.say import show_number, table_lines

COLUMNS = ("vertex", "what", "shape", "reads", "parameters", "state")
FULL = (*COLUMNS, "init", "FLOPs", "bytes")
RATES = (
    "phase", "group", "trains", "tensors", "parameters", "optimizer", "lr", "decay", "schedule",
    "epochs", "batch",
)  # fmt: skip
WIDTH = 100  # columns of the lines under the tables


def plan_text(recipe: Recipe, plan: Plan, *, full: bool = False) -> str:
    """Return the plan as plain text.

    Args:
        recipe: What the user asked for.
        plan: Its plan.
        full: Every vertex, the removed ones and the tensors too; else one line a module.
    """
    groups = [[row] for row in plan.rows] if full else _folded(plan.rows)
    lines = _vertex_table(groups, full)
    if full and plan.removed:
        cells = [(r.name, r.kind, r.shape, listed(r.reads), r.origin) for r in plan.removed]
        lines += ["", *table_lines(("removed", "what", "shape", "read", "why"), cells)]
    if plan.rates:
        lines += ["", *table_lines(RATES, _rate_cells(plan))]
    return "\n".join([*lines, "", *_lines(recipe, plan, full)])


def _folded(rows: Sequence[VertexRow]) -> list[list[VertexRow]]:
    """Put runs of kept vertices in one state together, by their outermost module."""
    return [list(run) for _, run in groupby(rows, key=_fold_key)]


def _fold_key(row: VertexRow) -> tuple[str, str, bool]:
    outer = row.name.split(".")[0] if row.origin == "kept" and not row.was else row.name
    return outer, row.origin, row.frozen


def _vertex_table(groups: Sequence[Sequence[VertexRow]], full: bool) -> list[str]:
    names = _group_names(groups)
    home = {row.name: name for group, name in zip(groups, names, strict=True) for row in group}
    above = ["", *names]
    cells = [
        _cells(group, name, _reads(group, home, before), full)
        for group, name, before in zip(groups, names, above, strict=False)
    ]
    columns: tuple[str, ...] = FULL if full else COLUMNS
    if not any(row[3] for row in cells):
        columns = tuple(column for column in columns if column != "reads")
        cells = [(*row[:3], *row[4:]) for row in cells]
    return table_lines(columns, cells)


def _group_names(groups: Sequence[Sequence[VertexRow]]) -> list[str]:
    """Name each group: by its module where it holds all of that, else by its last vertex."""
    outer = [group[-1].name.split(".")[0] for group in groups]
    return [
        group[-1].name if len(group) == 1 or outer.count(module) > 1 else module
        for group, module in zip(groups, outer, strict=True)
    ]


def _reads(group: Sequence[VertexRow], home: dict[str, str], above: str) -> str:
    """Name what a row of the table reads, where it is not simply the row above."""
    own = {row.name for row in group}
    read = dict.fromkeys(home[name] for row in group for name in row.reads if name not in own)
    return "" if list(read) == [above] else listed(list(read), 3)


def _cells(group: Sequence[VertexRow], name: str, reads: str, full: bool) -> tuple[str, ...]:
    last = group[-1]
    kind = last.kind if len(group) == 1 else f"{len(group)} vertices"
    shape = f"{last.was} → {last.shape}" if last.was else last.shape
    numel = sum(row.num_parameters for row in group)
    frozen = "frozen" if last.frozen else "trains" if numel else ""
    state = f"{last.origin}, {frozen}" if frozen else last.origin
    cells = (name, kind, shape, reads, f"{numel:,}", state)
    if not full:
        return cells
    return (*cells, last.init, show_number(last.flops), f"{last.num_bytes:,}")


def _rate_cells(plan: Plan) -> list[tuple[str, ...]]:
    return [
        (
            rate.phase,
            rate.group,
            listed(rate.trains, 4),
            str(rate.tensors),
            f"{rate.parameters:,}",
            rate.optimizer,
            shown_rate(rate),
            "-" if rate.weight_decay is None else f"{rate.weight_decay:g}",
            shown_schedule(rate),
            str(rate.epochs),
            str(rate.batch_size),
        )
        for rate in plan.rates
    ]


def shown_rate(rate: RateRow) -> str:
    """Show a rate at the start and at the end of its phase."""
    ends = [f"{rate.lr:.3g}", f"{rate.lr_end:.3g}"]
    return " → ".join(dict.fromkeys(ends))


def shown_schedule(rate: RateRow) -> str:
    """Name a schedule with its warm-up."""
    if not rate.warmup:
        return rate.schedule
    long = f"{rate.warmup:.0%}" if rate.warmup < 1 else f"{rate.warmup:g} epochs"
    return f"{rate.schedule}, warm-up {long}"


def _edge_lines(plan: Plan) -> list[tuple[str, str]]:
    """Say what thaws and what freezes where a phase begins."""
    lines = []
    for edge in plan.edges:
        parts = []
        if edge.thawed:
            parts.append(f"{edge.thawed} tensors thaw: {listed(edge.thaws)}")
        if edge.frozen:
            parts.append(f"{edge.frozen} freeze: {listed(edge.freezes)}")
        lines.append(("edge", f"{edge.phase}: {'; '.join(parts) or 'the same layers train'}"))
    return lines


def _lines(recipe: Recipe, plan: Plan, full: bool) -> list[str]:
    """Return what stands under the tables."""
    told: list[tuple[str, str]] = []
    if plan.removed and not full:
        told.append(("removed", listed([row.name for row in plan.removed])))
    new = [f"{row.name}: {_init(row.init)}" for row in plan.rows if row.init]
    if new:
        told.append(("new weights", listed(new, 4)))
    told.append(("parameters", f"{plan.trainable:,} train, {plan.frozen:,} are frozen"))
    told.append(("FLOPs", _flops(recipe, plan)))
    told.append(("memory", _memory(recipe, plan)))
    told.append(("features", _features(plan)))
    told += _edge_lines(plan)
    told += [("note", note) for note in plan.notes]
    return [line for word, text in told for line in _wrapped(f"{word:<12}", text)]


def _wrapped(word: str, text: str) -> list[str]:
    """Fold a line to WIDTH columns behind its word; names stay whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=word,
        subsequent_indent=" " * len(word),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _init(init: str) -> str:
    return "torch's default" if init == "default" else init


def _flops(recipe: Recipe, plan: Plan) -> str:
    costs = plan.costs
    step = f"trainable {show_number(costs.suffix_flops)}, a training step {show_number(costs.step_flops)}"
    if not plan.boundary:
        return f"an image: {step}"
    live = recipe.features.cache == "off" or (
        recipe.data.augment.train and recipe.features.views is None
    )
    often = "every time" if live else "once"
    return f"an image: frozen {show_number(costs.prefix_flops)} {often}, {step}"


def _memory(recipe: Recipe, plan: Plan) -> str:
    costs = plan.costs
    tune = recipe.phases()[0].fine_tune
    parts = f"weights {_bytes(costs.weights)} + gradients {_bytes(costs.gradients)}"
    if costs.state:
        parts += f" + {tune.optimizer.name}'s state {_bytes(costs.state)}"
    if costs.prefix > costs.activations:
        largest = f"the frozen part on {recipe.features.batch_size} images {_bytes(costs.prefix)}"
    else:
        largest = f"activations of a batch of {tune.batch_size} {_bytes(costs.activations)}"
    return f"about {_bytes(costs.memory)}: {parts} + {largest}"


def _features(plan: Plan) -> str:
    if not plan.boundary:
        why = plan.not_cacheable or "nothing is frozen"
        return f"{why}: the whole model runs in every step"
    crossing = ", ".join(f"{b.vertex} {b.shape}" for b in plan.boundary)
    text = f"{crossing}: {plan.feature_bytes:,} bytes an image"
    if plan.rows_of_features is not None:
        total = _bytes(plan.feature_bytes * plan.rows_of_features)
        text += f", {total} for {plan.rows_of_features:,} images"
    kept = (
        plan.tier.worded() if plan.tier else "computed again in every epoch (features.cache: off)"
    )
    return f"{text}; {kept}"


def _bytes(number: float) -> str:
    return show_number(number, "B")
