"""What ran, and where: versions, device, threads."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

PACKAGES = ("tlcompile", "torchvision", "safetensors", "pillow", "hydra-core", "pydantic")


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions of what decides the numbers, the device and its threads."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{p: _version(p) for p in PACKAGES},
            "torch": str(torch.__version__),
        },
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.processor() or platform.machine()}"
