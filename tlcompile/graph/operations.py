"""What operations without weights do to axes: which must agree, which merge, which are cut."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

VIEWS = {"reshape", "view", "unflatten"}
FACTORS = {"mul", "truediv", "div"}
ELEMENTWISE = FACTORS | {"add", "sub", "maximum", "minimum", "fmax", "fmin", "pow", "atan2"}
CONCATENATIONS = {"cat", "concat", "concatenate"}


def word_of(node: fx.Node) -> str:
    """Return an operation's name: `add` for torch.add, operator.add and Tensor.add alike."""
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")


def changed_axes(before: torch.Tensor, after: torch.Tensor) -> list[int]:
    """Return the axes whose sizes differ."""
    sizes = zip(before.shape, after.shape, strict=True)
    return [axis for axis, (old, new) in enumerate(sizes) if old != new]


def operands_of(node: fx.Node, values: dict[fx.Node, Any]) -> list[fx.Node]:
    """Return the tensors that an elementwise operation or a concatenation combines; else none."""
    if word_of(node) in ELEMENTWISE | CONCATENATIONS:
        found = [n for n in node.all_input_nodes if isinstance(values[n], torch.Tensor)]
        return found if len(found) > 1 else []
    return []


def concatenated_axis(node: fx.Node) -> int:
    """Return the axis along which a vertex concatenates."""
    given = node.kwargs.get(
        "dim", node.kwargs.get("axis", node.args[1] if len(node.args) > 1 else 0)
    )
    assert isinstance(given, int)
    return given


def common_axes(node: fx.Node, values: list[torch.Tensor]) -> list[int]:
    """Return the axes, from the end, on which operands must agree."""
    axes = list(range(-max((v.dim() for v in values), default=0), 0))
    if word_of(node) in CONCATENATIONS and values:
        axes.remove(concatenated_axis(node) % values[0].dim() - values[0].dim())
    return axes


def keeps_place(
    before: torch.Tensor, axes: list[int], old: torch.Tensor, new: torch.Tensor
) -> bool:
    """Tell whether a view keeps changed channels where they were, merged or divided with others.

    An axis is a range of strides; reshape(n, 768, -1) of a wider map moves channels into pixels.
    """
    changed = changed_axes(old, new) if old.dim() == new.dim() else []
    if len(axes) != 1 or len(changed) != 1:
        return False
    low, high = strides(before, axes[0])
    other_low, other_high = strides(old, changed[0])
    return max(low, other_low) < min(high, other_high)


def strides(tensor: torch.Tensor, axis: int) -> tuple[int, int]:
    """Return how many entries one step along an axis spans, and how many the whole axis."""
    inner = prod(tensor.shape[axis + 1 :])
    return inner, inner * tensor.shape[axis]


def cuts(index: Any, axis: int, dim: int) -> bool:
    """Tell whether an index takes a part of an axis."""
    parts = [p for p in (index if isinstance(index, tuple) else (index,)) if p is not None]
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (dim - len(parts) + 1)
    return axis < len(parts) and parts[axis] != slice(None)
