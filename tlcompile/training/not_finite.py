"""Say where NaN or infinity came from: the features, the labels, a weight, a layer, a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tlcompile.training.sharding import whole

What = Literal["feature", "label", "weight", "loss", "gradient"]


class TakesLoss(Protocol):
    """What find_not_finite needs of an objective."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the mean loss over a batch."""
        ...


@dataclass(frozen=True)
class NotFinite:
    """The first value that is not a finite number, in the order of computation.

    Attributes:
        what: What it is a value of.
        layer: The layer or parameter that has it; None: no layer has computed it.
        positions: The samples it was seen in, as places in the batch; all of them where it cannot
            be told apart.
    """

    what: What
    layer: str | None
    positions: tuple[int, ...]


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, on their device; NaN or infinite if one is.

    Shape:
        out: ()
    """
    return whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def find_not_finite(
    model: nn.Module,
    forward: Callable[..., Any],
    rows: Sequence[Tensor],
    targets: Any,
    objective: TakesLoss,
) -> NotFinite:
    """Find the first value of a step that is not finite. Computes the step once more.

    Args:
        model: As it was before the optimizer's step; its gradients are those of the step.
        forward: Computes the outputs from rows; seed dropout before, to see the same step.
        rows: What the step read.
        targets: What its outputs are compared with.
        objective: Whose loss it was.
    """
    every = tuple(range(len(rows[0])))
    if bad := _bad_samples(rows):
        return NotFinite("feature", None, bad)
    if bad := _bad_samples(pytree.tree_leaves(targets)):
        return NotFinite("label", None, bad)
    # Running statistics of the step itself show only what its features were: not asked.
    bad_weight = next((n for n, p in model.named_parameters() if not _is_finite(p)), None)
    if bad_weight is not None:
        return NotFinite("weight", bad_weight, every)
    layer, outputs = _first_layer(model, forward, rows)
    if layer is not None:
        name, tensors = layer
        whole = [t for t in tensors if t.dim() and len(t) == len(every)]  # not cut into windows
        return NotFinite("loss", name, _bad_samples(whole) or every)
    if bad := tuple(_bad_losses(objective, outputs, targets, len(every))):
        return NotFinite("loss", None, bad)
    return NotFinite("gradient", _worst_gradient(model), every)


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(whole(tensor)).all())


def _bad_samples(tensors: Sequence[Any]) -> tuple[int, ...]:
    """Return the samples, counted along the first dimension, with a value that is not finite."""
    found: set[int] = set()
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
            found.update((~finite).nonzero().flatten().tolist())
    return tuple(sorted(found))


def _first_layer(
    model: nn.Module, forward: Callable[..., Any], rows: Sequence[Tensor]
) -> tuple[tuple[str, list[Tensor]] | None, Any]:
    """Run the step once more; return the first layer that computes such values, and the outputs."""
    found: list[tuple[str, list[Tensor]]] = []

    def look(name: str, output: Any) -> None:
        bad = [] if found else [t for t in _tensors(output) if not _is_finite(t)]
        if bad:
            found.append((name, bad))

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            outputs = forward(*rows)
    finally:
        for handle in handles:
            handle.remove()
    return (found[0] if found else None), outputs


def _tensors(output: Any) -> Iterator[Tensor]:
    return (t for t in pytree.tree_leaves(output) if isinstance(t, Tensor))


@torch.no_grad()
def _bad_losses(objective: TakesLoss, outputs: Any, targets: Any, count: int) -> Iterator[int]:
    """Yield the samples whose loss, taken alone, is not finite."""
    for place in range(count):
        alone = slice(place, place + 1)
        if not _is_finite(objective.loss(_take(outputs, alone), _take(targets, alone))):
            yield place


def _take(tree: Any, samples: slice) -> Any:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[samples], tree)


def _worst_gradient(model: nn.Module) -> str | None:
    """Return the parameter nearest to the outputs with a gradient that is not finite.

    Where each is finite and only their norm overflows: the one with the largest value.
    """
    having = [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
    for name, gradient in reversed(having):
        if not _is_finite(gradient):
            return name
    return max(having, key=lambda one: float(whole(one[1]).abs().max()))[0] if having else None
