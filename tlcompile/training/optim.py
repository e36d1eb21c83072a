"""torch.optim's optimizers by name: groups of named parameters, and state by parameter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlcompile.errors.resume import OtherStateError
from tlcompile.training.groups import Group
from tlcompile.training.sharding import like

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
    "adafactor": torch.optim.Adafactor,
    "muon": torch.optim.Muon,
}
FUSED = frozenset({"sgd", "adam", "adamw"})  # have one kernel for a whole step

_EMPTY = "none"  # in the place of state: this parameter has none yet


def has_fused(device: torch.device) -> bool:
    """Tell whether fused optimizers are taken on a device.

    On a CPU they would change the last bits, and save nothing that counts.
    """
    return device.type == "cuda"


class Optimizers:
    """All optimizers of a phase as one.

    Attributes:
        each: torch's own, one for each name that the groups have.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        parameters: Mapping[str, nn.Parameter],
        *,
        fused: bool = False,
    ) -> None:
        """Build them; nothing is known yet of earlier steps.

        Args:
            groups: Every parameter is in at most one.
            parameters: All that the groups name.
            fused: One kernel for a whole step, where the optimizer has it.
        """
        self._groups = {
            name: [group for group in groups if group.optimizer == name]
            for name in dict.fromkeys(group.optimizer for group in groups)
        }
        self._parameters = {n: parameters[n] for group in groups for n in group.parameters}
        self.each = tuple(
            self._built(name, own, fused and name in FUSED) for name, own in self._groups.items()
        )

    def _built(self, name: str, groups: Sequence[Group], fused: bool) -> torch.optim.Optimizer:
        build: Any = OPTIMIZERS[name]
        kwargs = {"fused": True} if fused else {}
        made: torch.optim.Optimizer = build([self._torch_group(g) for g in groups], **kwargs)
        for own in made.param_groups if name == "adagrad" else ():
            for parameter in own["params"]:  # torch fills all with one value, that of no group
                made.state[parameter]["sum"].fill_(own["initial_accumulator_value"])
        return made

    def _torch_group(self, group: Group) -> dict[str, Any]:
        held = [self._parameters[name] for name in group.parameters]
        return {"params": held, "lr": group.lr, **group.options}

    def _pairs(self) -> Iterator[tuple[Group, dict[str, Any]]]:
        """Yield each group with torch's own."""
        for groups, optimizer in zip(self._groups.values(), self.each, strict=True):
            yield from zip(groups, optimizer.param_groups, strict=True)

    def set_factor(self, factor: float) -> None:
        """Set every group's rate to its own, times a factor."""
        for group, own in self._pairs():
            own["lr"] = group.lr * factor

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self.each:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for optimizer in self.each:
            optimizer.step()

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each group now, by its name."""
        return {group.name: float(own["lr"]) for group, own in self._pairs()}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of every parameter, by names such as `fc.weight/exp_avg`."""
        return {
            f"{name}/{key}": value for name, state in self._states() for key, value in state.items()
        }

    def _states(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield each parameter's state; one that had no gradient yet says that it has none."""
        for groups, optimizer in zip(self._groups.values(), self.each, strict=True):
            for group in groups:
                keeps = bool(_shapes_of_state(group, (1, 1)))
                none = {_EMPTY: torch.empty(0)} if keeps else {}
                for name in group.parameters:
                    yield name, optimizer.state.get(self._parameters[name]) or none

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave.

        Raises:
            OtherStateError: State is missing, left over or of another shape.
        """
        saved: dict[str, dict[str, Tensor]] = {name: {} for name in self._parameters}
        for path, value in tensors.items():
            name, _, key = path.rpartition("/")
            saved.setdefault(name, {})[key] = value
        self._refuse_other(saved)
        for groups, optimizer in zip(self._groups.values(), self.each, strict=True):
            names = [name for group in groups for name in group.parameters]
            states = {
                index: {
                    key: like(self._parameters[name], value.clone())
                    for key, value in saved[name].items()
                }
                for index, name in enumerate(names)
                if _EMPTY not in saved[name]
            }
            now = optimizer.state_dict()
            optimizer.load_state_dict({"state": states, "param_groups": now["param_groups"]})

    def _refuse_other(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Refuse what does not fit these groups, before anything is changed."""
        wanted = {
            name: _shapes_of_state(group, tuple(self._parameters[name].shape))
            for group, _ in self._pairs()
            for name in group.parameters
        }
        found = {
            name: {key: tuple(value.shape) for key, value in state.items()}
            for name, state in saved.items()
        }
        missing = [n for n in wanted if found[n] != {_EMPTY: (0,)} and found[n] != wanted[n]]
        left_over = [name for name in found if name not in wanted]
        if missing or left_over:
            raise OtherStateError(
                what="state of the optimizer", missing=tuple(missing), left_over=tuple(left_over)
            )


def _shapes_of_state(group: Group, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return what an optimizer keeps of a parameter: what it keeps of zeros after one step."""
    zeros = nn.Parameter(torch.zeros(shape))
    zeros.grad = torch.zeros_like(zeros)
    build: Any = OPTIMIZERS[group.optimizer]
    optimizer: torch.optim.Optimizer = build([zeros], lr=group.lr, **group.options)
    optimizer.step()
    return {key: tuple(value.shape) for key, value in optimizer.state[zeros].items()}


class Given:
    """An optimizer that a Python caller has built, and whose rates it changes itself.

    Args:
        optimizer: torch's own, or one that steps like those.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.each = (optimizer,)

    def set_factor(self, factor: float) -> None:
        """Leave the rates as they are."""

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each group now, by its number."""
        return {str(n): float(g["lr"]) for n, g in enumerate(self.optimizer.param_groups)}

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: what the caller has built, the caller saves."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take nothing."""


def build_optimizer(
    name: str, parameters: Sequence[tuple[str, nn.Parameter]], *, lr: float, **options: Any
) -> torch.optim.Optimizer:
    """Build an optimizer with every parameter in exactly one group.

    Args:
        name: Of `OPTIMIZERS`.
        parameters: Named; the names appear in the groups, so that state is saved by name.
        lr: Learning rate.
        options: The optimizer's own, in torch's words.
    """
    build: Any = OPTIMIZERS[name]
    group = {"params": [p for _, p in parameters], "names": [n for n, _ in parameters]}
    optimizer: torch.optim.Optimizer = build([group], lr=lr, **options)
    return optimizer
