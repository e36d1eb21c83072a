"""What ran, on what, and where: base, images, versions, device, threads."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlcompile.data.samples import Samples
from tlcompile.recipe.layers.plugins import allowed_plugins
from tlcompile.zoo.base import BaseModel

PACKAGES = (
    "tlcompile",
    "torchvision",
    "safetensors",
    "torchmetrics",
    "pillow",
    "hydra-core",
    "pydantic",
)


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
        "plugins": {name: f"{p.package} {p.version}" for name, p in allowed_plugins().items()},
    }


def base_record(opened: BaseModel) -> dict[str, Any]:
    """Return what a run started from, with the digest of its weights. Ask before compiling.

    A base's digest is of its tensors, so a file in another format has the same; that of a run is
    of its bundle's weights file, as `sha256sum` says it.
    """
    record = {"model": opened.name, "weights": opened.weights, "licence": opened.licence}
    if opened.run is None:
        return {**record, "sha256": tensors_digest(opened.module)}
    model = opened.run.root["model"]
    return {**record, "model": model, "run": opened.name, "sha256": opened.run.weights_sha256}


def tensors_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's tensors: names, shapes, types and bytes, in their order."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def images_digest(samples: Samples) -> str:
    """Return the SHA-256 of a split's list: class and file name of each, not what the files hold."""
    wanted = zip(samples.ids, _answers(samples), strict=True)
    lines = [f"{answer}/{Path(name).name}\n" for name, answer in wanted]
    # A file's name need not be text; "surrogateescape" gives the bytes that the disk has.
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _answers(samples: Samples) -> Sequence[str]:
    """Return what is to be predicted of each sample, as text."""
    if samples.masks:
        return [Path(mask).name for mask in samples.masks]
    if samples.values is None:
        return [samples.classes[label] for label in samples.labels]
    several = samples.values if isinstance(samples.values, Mapping) else {"": samples.values}
    columns = [[str(row) for row in values.tolist()] for values in several.values()]
    return [" ".join(cells) for cells in zip(*columns, strict=True)]


@functools.cache  # reading a package's metadata takes half a millisecond
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.processor() or platform.machine()}"
