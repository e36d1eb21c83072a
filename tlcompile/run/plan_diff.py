"""What differs between the plans of two recipes: keys, vertices, tensors, rates, totals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from tlcompile.model.compiled import TensorRow, VertexRow
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import resolved, show_sizes
from tlcompile.run.plan import Plan
from tlcompile.run.plan_text import shown_rate, shown_schedule
from tlcompile.run.rates import RateRow
from tlcompile.run.say import table_lines

ABSENT = "-"
COLUMNS = ("what", "name", "this", "other")


@dataclass(frozen=True)
class Difference:
    """One thing that two plans say differently.

    Attributes:
        what: recipe, vertex, tensor, rate or total.
        name: The key, vertex, tensor, phase or total.
        this: In the first plan; `-` where it has none.
        other: In the second.
    """

    what: str
    name: str
    this: str
    other: str


def differences(this: tuple[Recipe, Plan], other: tuple[Recipe, Plan]) -> list[Difference]:
    """Compare two recipes and their plans; nothing is folded."""
    pairs = [
        ("recipe", _keys(this[0]), _keys(other[0])),
        ("vertex", *_vertices(this[1], other[1])),
        ("tensor", *_tensors(this[1], other[1])),
        ("rate", _rates(this[1]), _rates(other[1])),
        ("total", _totals(this[1]), _totals(other[1])),
    ]
    return [found for what, ours, theirs in pairs for found in _compare(what, ours, theirs)]


def diff_text(found: Sequence[Difference]) -> str:
    """Return the differences as a table; runs of one module that differ alike are one line."""
    if not found:
        return "the two plans are equal"
    return "\n".join(table_lines(COLUMNS, [list(_folded(list(run))) for run in _runs(found)]))


def diff_json(found: Sequence[Difference]) -> list[dict[str, str]]:
    """Return the differences as plain data; docs/json.md has the keys."""
    return [asdict(one) for one in found]


def _runs(found: Sequence[Difference]) -> Iterator[Iterator[Difference]]:
    return (run for _, run in groupby(found, key=_fold_key))


def _fold_key(one: Difference) -> tuple[str, ...]:
    if one.what not in ("vertex", "tensor"):
        return one.what, one.name
    return one.what, one.name.split(".")[0], one.this, one.other


def _folded(run: list[Difference]) -> tuple[str, str, str, str]:
    first = run[0]
    if len(run) == 1:
        return first.what, first.name, first.this, first.other
    words = {"vertex": "vertices", "tensor": "tensors"}[first.what]
    return first.what, f"{first.name.split('.')[0]} ({len(run)} {words})", first.this, first.other


def _compare(what: str, this: Mapping[str, str], other: Mapping[str, str]) -> Iterator[Difference]:
    for name in dict.fromkeys((*this, *other)):
        ours, theirs = this.get(name, ABSENT), other.get(name, ABSENT)
        if ours != theirs:
            yield Difference(what, name, ours, theirs)


def _keys(recipe: Recipe) -> dict[str, str]:
    data = resolved(recipe)
    data.pop("name")
    return dict(_flat("", data))


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    else:
        yield path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _vertices(this: Plan, other: Plan) -> tuple[dict[str, str], dict[str, str]]:
    ours, theirs = ({row.name: row for row in plan.rows} for plan in (this, other))
    odd = {n for n in ours.keys() & theirs.keys() if ours[n].shape != theirs[n].shape}
    return _worded(ours, odd), _worded(theirs, odd)


def _worded(rows: Mapping[str, VertexRow], with_shape: set[str]) -> dict[str, str]:
    """Word each vertex; its shape only where both have it and differ, so that runs fold."""
    return {
        name: " ".join(filter(None, [row.shape if name in with_shape else "", _state(row)]))
        for name, row in rows.items()
    }


def _state(row: VertexRow) -> str:
    return ", ".join(filter(None, [row.origin, row.init, "frozen" if row.frozen else ""]))


def _tensors(this: Plan, other: Plan) -> tuple[dict[str, str], dict[str, str]]:
    ours, theirs = ({row.name: row for row in plan.tensors} for plan in (this, other))
    odd = {n for n in ours.keys() & theirs.keys() if ours[n].shape != theirs[n].shape}
    return _worded_tensors(ours, odd), _worded_tensors(theirs, odd)


def _worded_tensors(rows: Mapping[str, TensorRow], with_shape: set[str]) -> dict[str, str]:
    return {
        name: " ".join(
            filter(None, [show_sizes(row.shape) if name in with_shape else "", _of_tensor(row)])
        )
        for name, row in rows.items()
    }


def _of_tensor(row: TensorRow) -> str:
    return ", ".join(filter(None, [row.origin, row.init, row.source, row.state]))


def _rates(plan: Plan) -> dict[str, str]:
    return {f"{rate.phase}: {rate.group}": _of_rate(rate) for rate in plan.rates}


def _of_rate(rate: RateRow) -> str:
    decay = "" if rate.weight_decay is None else f", decay {rate.weight_decay:g}"
    return (
        f"{rate.optimizer}, lr {shown_rate(rate)}{decay}, {shown_schedule(rate)}, {rate.epochs} "
        f"epochs of batches of {rate.batch_size}, {rate.parameters:,} parameters"
    )


def _totals(plan: Plan) -> dict[str, str]:
    costs = plan.costs
    numbers = {
        "parameters that train": plan.trainable,
        "frozen parameters": plan.frozen,
        "FLOPs of the frozen part": costs.prefix_flops,
        "FLOPs of the trainable part": costs.suffix_flops,
        "FLOPs of a training step": costs.step_flops,
        "bytes of memory": costs.memory,
        "bytes of features an image": plan.feature_bytes,
    }
    return {name: f"{number:,}" for name, number in numbers.items()}
