"""Where to compute, and how exactly."""

from __future__ import annotations

import os

import torch

from tlcompile.errors.run import NoDeviceError
from tlcompile.recipe.schema import Recipe


def available_devices() -> tuple[str, ...]:
    """Return the kinds of device of this machine, the fastest first."""
    cuda = ("cuda",) if torch.cuda.is_available() else ()
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*cuda, *mps, "cpu")


def choose_device(recipe: Recipe) -> torch.device:
    """Return the device that `run.device` names; auto: the fastest that is there.

    Raises:
        NoDeviceError: This machine has none of that kind.
    """
    wanted, available = recipe.run.device, available_devices()
    if wanted == "auto":
        return torch.device(available[0])
    if wanted not in available:
        error = NoDeviceError(wanted=wanted, available=available, key=("run", "device"))
        raise error.at(recipe.where(error.key))
    return torch.device(wanted)


def device_type(recipe: Recipe) -> str:
    """Return the kind of device that a recipe would run on, which this machine need not have."""
    return available_devices()[0] if recipe.run.device == "auto" else recipe.run.device


def exactly(*, deterministic: bool = False) -> None:
    """Compute in full fp32: TF32 off, and cuDNN's deterministic kernels.

    Args:
        deterministic: Refuse every other kernel that may add up in another order, too: torch
            raises where it has no such kernel for an operation.
    """
    if deterministic:
        # cuBLAS reads it when it starts; any of its two values will do.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
