"""How the trainable part is computed: precision, memory format, compiled or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from tlcompile.model.compiled import CompiledModel

DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Compute:
    """What stands around the forwards and backwards of a phase.

    Attributes:
        precision: fp32: as it is written, to the bit. bf16, fp16: torch.autocast, channels-last.
        device: Where.
        compiled: Whether torch.compile is asked to make the trainable part faster.
    """

    precision: str = "fp32"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    compiled: bool = False
    _scaler: torch.amp.GradScaler | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.precision == "fp16":  # gradients of fp16 vanish unless they are scaled
            self._scaler = torch.amp.GradScaler(self.device.type)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return what stands around a forward and its loss."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def prepare(self, model: CompiledModel) -> None:
        """Lay images' weights out as the fast kernels want them."""
        if self.precision != "fp32":
            model.to(memory_format=torch.channels_last)

    def rows(self, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Lay a batch out as the weights are."""
        if self.precision == "fp32":
            return rows
        images = [t.dim() == 4 and t.is_floating_point() for t in rows]
        return tuple(
            t.contiguous(memory_format=torch.channels_last) if image else t
            for t, image in zip(rows, images, strict=True)
        )

    def forward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a forward as it is, or compiled."""
        return torch.compile(function) if self.compiled else function

    def scaled(self, loss: Tensor) -> Tensor:
        """Return what `backward` is called on."""
        if self._scaler is None:
            return loss
        found: Tensor = self._scaler.scale(loss)
        return found

    def unscale(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """Give gradients their own size again; False where fp16 could not hold them."""
        if self._scaler is None:
            return True
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)
        states = self._scaler._per_optimizer_states.values()
        bad = [t for state in states for t in state["found_inf_per_device"].values()]
        return not any(bool(tensor) for tensor in bad)

    def is_at_its_end(self) -> bool:
        """Tell whether gradients are scaled no more: one that is not finite is none of fp16's."""
        return self._scaler is not None and self._scaler.get_scale() <= 1.0

    def step(self, optimizers: Sequence[torch.optim.Optimizer], *, sound: bool = True) -> None:
        """Let all optimizers step, or none where a gradient overflowed; then scale less."""
        for optimizer in optimizers if sound else ():
            optimizer.step()
        if self._scaler is not None:
            self._scaler.update()

    def tensors(self) -> dict[str, Tensor]:
        """Return all that an exact resume needs."""
        if self._scaler is None:
            return {}
        state = self._scaler.state_dict()
        return {name: torch.tensor(float(state[name])) for name in _SCALER}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        if self._scaler is not None:
            state = self._scaler.state_dict()
            self._scaler.load_state_dict({**state, **{n: tensors[n].item() for n in tensors}})


_SCALER: Final = ("scale", "_growth_tracker")


def choose_precision(word: str, device: torch.device) -> str:
    """Return how to train where the recipe leaves it to the machine.

    bf16 needs no scaling and has the range of fp32, so it comes first where the hardware has it.

    Args:
        word: fp32, bf16, fp16 or auto.
        device: Where.
    """
    if word != "auto":
        return word
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    tiles = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return "bf16" if tiles else "fp32"
