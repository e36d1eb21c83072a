"""What would happen, as tables: vertices, weights, what trains. Needs neither weights nor data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tlcompile.model.compiled import CompiledModel, VertexRow
from tlcompile.recipe.schema import Recipe
from tlcompile.run.say import table_lines
from tlcompile.training.schedule import DEFAULT_LR_NEW, DEFAULT_LR_TUNED

COLUMNS = ("vertex", "what", "shape", "parameters", "state")


@dataclass(frozen=True)
class Plan:
    """The plan of a recipe.

    Attributes:
        rows: One for each vertex or folded run of kept vertices.
        dropped: Vertices that are taken away, with the reason.
        trainable: Parameters that learn.
        frozen: Parameters that do not.
        boundary: (vertex, shape, bytes of one image).
        notes: Sentences.
    """

    rows: tuple[VertexRow, ...]
    dropped: dict[str, str]
    trainable: int
    frozen: int
    lr: float
    boundary: tuple[tuple[str, tuple[int, ...], int], ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "vertices": [vars(row) for row in self.rows],
            "dropped": self.dropped,
            "parameters": {"trainable": self.trainable, "frozen": self.frozen},
            "lr": self.lr,
            "boundary": [{"vertex": v, "shape": list(s), "bytes": b} for v, s, b in self.boundary],
            "notes": list(self.notes),
        }


def make_plan(recipe: Recipe, model: CompiledModel) -> Plan:
    """Derive the plan from a compiled model, which may live on meta."""
    frozen = sum(p.numel() for n, p in model.named_parameters() if n in model.frozen.tensors)
    trainable = sum(p.numel() for _, p in model.trainable())
    return Plan(
        rows=model.summary.vertices,
        dropped=model.summary.dropped,
        trainable=trainable,
        frozen=frozen,
        lr=base_rate(recipe, model),
        boundary=tuple((b.vertex, b.shape, b.num_bytes) for b in model.boundary),
        notes=(*model.summary.notes, *_notes(recipe)),
    )


def base_rate(recipe: Recipe, model: CompiledModel) -> float:
    """Return the learning rate: the recipe's, else one that fits what trains."""
    if recipe.fine_tune.optimizer.lr is not None:
        return float(recipe.fine_tune.optimizer.lr)
    only_new = all(name in model.origins for name, _ in model.trainable())
    return DEFAULT_LR_NEW if only_new else DEFAULT_LR_TUNED


def _notes(recipe: Recipe) -> list[str]:
    schedule, epochs = recipe.fine_tune.schedule, recipe.fine_tune.epochs
    if schedule.name == "step" and schedule.every >= epochs:
        return [f"step at epoch {schedule.every}: not reached in {epochs}"]
    return []


def folded(plan: Plan) -> list[tuple[str, str, str, str, str]]:
    """Return table rows; runs of kept vertices in one state are folded by their outermost module.

    Each row is (vertex, what, shape, parameters, state).
    """
    rows: list[tuple[str, str, str, str, str]] = []
    run: list[VertexRow] = []
    for row in (*plan.rows, None):
        if run and (row is None or _group(row) != _group(run[-1])):
            rows.append(_folded(run))
            run = []
        if row is not None:
            run.append(row)
    return rows


def _group(row: VertexRow) -> tuple[str, str, bool]:
    outer = row.name.split(".")[0] if row.origin == "kept" else row.name
    return outer, row.origin, row.frozen


def _folded(run: list[VertexRow]) -> tuple[str, str, str, str, str]:
    last = run[-1]
    name = last.name if len(run) == 1 else last.name.split(".")[0]
    kind = last.kind if len(run) == 1 else f"{len(run)} vertices"
    numel = sum(row.num_parameters for row in run)
    frozen = "frozen" if last.frozen else "trains" if numel else ""
    state = last.origin if not frozen else f"{last.origin}, {frozen}"
    return name, kind, last.shape, f"{numel:,}", state


def plan_text(recipe: Recipe, plan: Plan) -> str:
    """Return the plan as plain text, for plan.txt and pipes."""
    return "\n".join([*table_lines(COLUMNS, folded(plan)), "", *summary_lines(recipe, plan)])


def summary_lines(recipe: Recipe, plan: Plan) -> list[str]:
    """Return what stands under the table."""
    lines = []
    if plan.dropped:
        names = list(plan.dropped)
        shown = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
        lines.append(f"dropped     {shown}")
    lines.append(f"trains      {plan.trainable:,} parameters; {plan.frozen:,} are frozen")
    tune = recipe.fine_tune
    rate = f"{tune.optimizer.name}, lr {plan.lr:g}, {tune.schedule.name}, {tune.epochs} epochs"
    lines.append(f"fine_tune   {rate} of batches of {tune.batch_size}")
    if plan.boundary:
        crossing = ", ".join(f"{v} {s}" for v, s, _ in plan.boundary)
        total = sum(b for _, _, b in plan.boundary)
        lines.append(f"features    {crossing}: {total:,} bytes an image")
    else:
        lines.append("features    nothing is frozen: the whole model runs in every step")
    lines += [f"note        {note}" for note in plan.notes]
    return lines
