"""torch's SGD, Adam and AdamW over the weights of several members, each with its own numbers.

One row of a tensor is one member; its numbers stand in columns beside the rows. Each operation is that
of torch.optim's loop over tensors with a column in the place of a number, so the same bits come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn

from tlcompile.training.groups import Group
from tlcompile.training.optim import OPTIMIZERS

FUSABLE: Final = ("sgd", "adam", "adamw")
# Options that choose what is computed: the same for all members that train as one.
CHOICES: Final = ("nesterov", "amsgrad")
_NONE: Final = "none"  # in the place of state, as Optimizers has it: there is none yet


def picked(tensor: Tensor, places: Sequence[int]) -> Tensor:
    """Return some rows of a tensor; those of a range share its memory."""
    if isinstance(places, range):
        return tensor[places.start : places.stop]
    return tensor[list(places)]


class MemberOptimizer:
    """Moves one tensor of every member.

    Args:
        rules: The group that this tensor is in, of each member: one optimizer, numbers that differ.
        weight: (K, ...) whose rows move.
    """

    def __init__(self, rules: Sequence[Group], weight: Tensor) -> None:
        self.rules = list(rules)
        self.weight = weight.detach()  # shares its memory, and gradients know nothing of it
        self.rates = [rule.lr for rule in rules]
        self.steps = 0
        self.state: dict[str, Tensor] = {}
        self._columns()

    def set_factors(self, factors: Sequence[float]) -> None:
        """Set each member's rate to its own, times a factor."""
        rates = [rule.lr * factor for rule, factor in zip(self.rules, factors, strict=True)]
        if rates != self.rates:
            self.rates = rates
            self._rate_columns()

    def step(self, grad: Tensor) -> None:
        """Move every row by its gradient."""
        raise NotImplementedError

    def keep(self, places: Sequence[int], weight: Tensor) -> None:
        """Go on with some members alone, whose weights are now these rows."""
        self.rules = [self.rules[place] for place in places]
        self.rates = [self.rates[place] for place in places]
        self.state = {name: picked(tensor, places) for name, tensor in self.state.items()}
        self.weight = weight.detach()
        self._columns()

    def tensors(self, place: int) -> dict[str, Tensor]:
        """Return one member's state in torch's words, as `Optimizers` saves it."""
        if not self.state:
            return {_NONE: torch.empty(0)} if self._keeps() else {}
        return {**self._counted(), **{name: t[place].clone() for name, t in self.state.items()}}

    def load(self, found: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over what `tensors` gave, of each member."""
        if not found[0] or _NONE in found[0]:
            self.state, self.steps = {}, 0
            return
        names = [name for name in found[0] if name != "step"]
        self.state = {name: torch.stack([one[name] for one in found]) for name in names}
        self.steps = int(found[0].get("step", torch.tensor(1)))

    def _columns(self) -> None:
        """Write the numbers of all members beside their rows."""
        self._rate_columns()

    def _rate_columns(self) -> None:
        raise NotImplementedError

    def _keeps(self) -> bool:
        return True

    def _counted(self) -> dict[str, Tensor]:
        return {}

    def _options(self, name: str) -> list[Any]:
        default = _defaults(self.rules[0].optimizer)[name]
        return [rule.options.get(name, default) for rule in self.rules]

    def _column(self, values: Sequence[float]) -> Tensor:
        """Return a number a row, rounded as torch rounds a Python number."""
        shape = (len(values), *[1] * (self.weight.dim() - 1))
        return torch.tensor(values, dtype=self.weight.dtype).view(shape).to(self.weight.device)


class MemberSgd(MemberOptimizer):
    """torch.optim.SGD."""

    def _columns(self) -> None:
        super()._columns()
        decay, momentum = self._options("weight_decay"), self._options("momentum")
        dampening = self._options("dampening")
        self.decay = self._column(decay) if any(decay) else None
        self.momentum = self._column(momentum) if any(momentum) else None
        self.kept = self._column([1 - one for one in dampening]) if any(dampening) else None
        self.nesterov = bool(self._options("nesterov")[0])

    def _rate_columns(self) -> None:
        self.rate = self._column([-rate for rate in self.rates])

    def step(self, grad: Tensor) -> None:
        """Move every row by its gradient."""
        self.steps += 1
        if self.decay is not None:
            grad = torch.addcmul(grad, self.weight, self.decay)
        if self.momentum is not None:
            grad = self._with_momentum(grad, self.momentum)
        self.weight.addcmul_(grad, self.rate)

    def _with_momentum(self, grad: Tensor, momentum: Tensor) -> Tensor:
        buffer = self.state.get("momentum_buffer")
        if buffer is None:
            buffer = self.state["momentum_buffer"] = grad.clone()
        else:
            buffer.mul_(momentum)
            buffer.add_(grad) if self.kept is None else buffer.addcmul_(grad, self.kept)
        return torch.addcmul(grad, buffer, momentum) if self.nesterov else buffer

    def tensors(self, place: int) -> dict[str, Tensor]:
        """Return one member's state in torch's words, as `Optimizers` saves it."""
        return super().tensors(place) if self._options("momentum")[place] else {}

    def load(self, found: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over what `tensors` gave, of each member."""
        held = [one.get("momentum_buffer") for one in found]
        if all(one is None for one in held):
            self.state = {}
            return
        zeros = torch.zeros_like(self.weight[0])  # of one without momentum
        rows = [zeros if one is None else one for one in held]
        self.state = {"momentum_buffer": torch.stack(rows)}

    def _keeps(self) -> bool:
        return self.momentum is not None


class MemberAdam(MemberOptimizer):
    """torch.optim.Adam, and AdamW."""

    def _columns(self) -> None:
        self.betas: list[tuple[float, float]] = self._options("betas")
        self.decoupled = self.rules[0].optimizer == "adamw"
        self.amsgrad = bool(self._options("amsgrad")[0])
        decay = self._options("weight_decay")
        self.has_decay = any(decay)
        self.decay = self._column(decay)
        self.first = self._column([1 - one for one, _ in self.betas])
        self.second = self._column([other for _, other in self.betas])
        self.square = self._column([1 - other for _, other in self.betas])
        self.eps = self._column(self._options("eps"))
        super()._columns()

    def _rate_columns(self) -> None:
        decay = self._options("weight_decay")
        shares = [1 - rate * one for rate, one in zip(self.rates, decay, strict=True)]
        self.share = self._column(shares)

    def _corrections(self) -> tuple[Tensor, Tensor]:
        """Return minus the size of this step, and what the root of the squares is divided by."""
        sizes, roots = [], []
        for rate, (first, second) in zip(self.rates, self.betas, strict=True):
            sizes.append(-(rate / (1 - first**self.steps)))
            roots.append((1 - second**self.steps) ** 0.5)
        return self._column(sizes), self._column(roots)

    def step(self, grad: Tensor) -> None:
        """Move every row by its gradient."""
        if not self.state:
            names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if self.amsgrad else ()))
            self.state = {name: torch.zeros_like(self.weight) for name in names}
        self.steps += 1
        mean, squares = self.state["exp_avg"], self.state["exp_avg_sq"]
        if self.has_decay and self.decoupled:
            self.weight.mul_(self.share)
        elif self.has_decay:
            grad = torch.addcmul(grad, self.weight, self.decay)
        mean.lerp_(grad, self.first)
        squares.mul_(self.second).addcmul_(grad * self.square, grad)
        if self.amsgrad:
            largest = self.state["max_exp_avg_sq"]
            squares = torch.maximum(largest, squares, out=largest)
        size, root = self._corrections()
        self.weight.addcdiv_(mean * size, (squares.sqrt() / root).add_(self.eps))

    def _counted(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(float(self.steps))}


@cache
def _defaults(name: str) -> Mapping[str, Any]:
    """Return torch's own options of an optimizer."""
    build: Any = OPTIMIZERS[name]
    defaults: Mapping[str, Any] = build([nn.Parameter(torch.zeros(1))]).defaults
    return defaults


_KINDS: Final[Mapping[str, Callable[[Sequence[Group], Tensor], MemberOptimizer]]] = {
    "sgd": MemberSgd,
    "adam": MemberAdam,
    "adamw": MemberAdam,
}


def member_optimizer(rules: Sequence[Group], weight: Tensor) -> MemberOptimizer:
    """Return what moves one tensor of every member.

    Args:
        rules: The group that the tensor is in, of each member.
        weight: (K, ...) whose rows move.

    Raises:
        ValueError: The members' optimizers are not one, or none that several can share.
    """
    kinds = {(rule.optimizer, *(bool(rule.options.get(c)) for c in CHOICES)) for rule in rules}
    if len(kinds) != 1 or rules[0].optimizer not in FUSABLE:
        raise ValueError(f"these do not train as one: {sorted(kinds)}")
    return _KINDS[rules[0].optimizer](rules, weight)
