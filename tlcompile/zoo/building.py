"""Build a module without its initial weights: `check` needs shapes, not numbers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn

from tlcompile.errors.weights import WeightsMismatchError

# What is patched is torch's own, for all threads: one at a time, and no layer is built meanwhile.
BUILDING = threading.RLock()

_INITIALISERS = [name for name in dir(nn.init) if name.endswith("_") and name[0] != "_"]


@contextlib.contextmanager
def without_init() -> Iterator[None]:
    """Make torch.nn.init's functions do nothing; pages that nobody writes cost nothing.

    Building on the meta device instead fails for 15 RegNets and for some of timm.
    """
    with BUILDING, contextlib.ExitStack() as stack:
        for name in _INITIALISERS:
            stack.enter_context(mock.patch.object(nn.init, name, _do_nothing))
        # MultiheadAttention imports it by name.
        activation = torch.nn.modules.activation
        stack.enter_context(mock.patch.object(activation, "xavier_uniform_", _do_nothing))
        yield


def _do_nothing(tensor: Any, *_args: Any, **_kwargs: Any) -> Any:
    return tensor


def load_exactly(
    module: nn.Module, tensors: dict[str, torch.Tensor], *, source: str, model: str
) -> None:
    """Load every tensor, or say which ones do not fit.

    Raises:
        WeightsMismatchError: A tensor is missing, unexpected, or has another shape.
    """
    own = module.state_dict()
    missing = tuple(own.keys() - tensors.keys() - _counters(own))
    unexpected = tuple(tensors.keys() - own.keys())
    shapes = tuple(
        f"{name}: {tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    )
    if missing or unexpected or shapes:
        raise WeightsMismatchError(
            source=source,
            model=model,
            missing=tuple(sorted(missing)),
            unexpected=tuple(sorted(unexpected)),
            shapes=tuple(sorted(shapes)),
        )
    with torch.no_grad():
        for name, tensor in own.items():
            if name in tensors:
                tensor.copy_(tensors[name])
            else:
                tensor.zero_()


def _counters(own: dict[str, torch.Tensor]) -> set[str]:
    """Return BatchNorm's step counters, which files from before torch 0.4.1 do not have."""
    return {name for name in own if name.endswith("num_batches_tracked")}
