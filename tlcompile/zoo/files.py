"""Read tensors from a file, without running anything that the file says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tlcompile.errors.base import nearest
from tlcompile.errors.weights import WeightsFileError
from tlcompile.recipe.finished import FROZEN

SUFFIXES = (".safetensors", ".pth", ".pt")


def is_file(weights: str) -> bool:
    """Tell a path from a name of the zoo."""
    return weights.endswith(SUFFIXES) or "/" in weights or "\\" in weights


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Read a .safetensors file, or a .pth with tensors alone (`weights_only`).

    Raises:
        WeightsFileError: It is missing, damaged, or holds more than tensors.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise _missing(file)
    if (file.parent / FROZEN).is_file():
        reason = f"it has a part of a run's weights, {FROZEN} beside it another"
        raise WeightsFileError(path=path, reason=reason, bundle=str(file.parent))
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            with warnings.catch_warnings(action="ignore"):  # of the file's age
                found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as cause:  # a damaged pickle raises what its bytes happen to say
        raise WeightsFileError(path=path, reason=_first_line(cause)) from cause
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise WeightsFileError(path=path, reason="it holds something else than named tensors")
    if not found:
        raise WeightsFileError(path=path, reason="it holds no tensor")
    return found


def _missing(file: Path) -> WeightsFileError:
    if file.is_dir():
        inside = sorted(str(path) for path in file.iterdir() if path.suffix in SUFFIXES)
        return WeightsFileError(path=str(file), reason="it is a folder", inside=tuple(inside))
    if not file.parent.is_dir():
        return WeightsFileError(path=str(file), reason=f"there is no folder '{file.parent}'")
    others = [str(file.parent / other.name) for other in sorted(file.parent.iterdir())]
    near = tuple(nearest(str(file), others))
    return WeightsFileError(path=str(file), reason="there is no such file", near=near)


def _first_line(cause: BaseException) -> str:
    text = str(cause).strip().splitlines()
    return text[0][:200] if text else type(cause).__name__
