"""Runs on several devices as a user starts them: in processes of their own, which must all end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parent.parent.parent
RECIPE = """\
base: {model: digits_net}
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 10, split: {val: 0.2, seed: 0}}
fine_tune:
  optimizer: {name: sgd, lr: 0.02, momentum: 0.9}
  batch_size: 6
  phases:
    - {name: head, freeze: head, epochs: 2}
    - {name: all, freeze: stem, epochs: 2}
"""


def start(*words: str, sabotage: str = "", runner: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    paths = [str(ROOT), str(Path(__file__).parent / "sabotage")]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PIDS": os.getcwd(), "OMP_NUM_THREADS": "1"}
    if sabotage:
        own["SABOTAGE"] = sabotage
    starter = runner or (sys.executable, "-m")
    return subprocess.Popen(
        [*starter, *(["-m"] if runner else []), "tlcompile", "train", *words],
        env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Wait for the end; nobody survives it."""
    said, errors = process.communicate(timeout=250)
    assert process.returncode == code, said + errors
    assert alive() == []
    return said, errors


def alive() -> list[int]:
    """Return the ranks that are still there; a zombie is not."""
    found = [int(path.stem) for path in Path().glob("*.pid")]
    return [pid for pid in found if state_of(pid) not in ("", "Z")]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def folder() -> Path:
    (found,) = Path("runs").iterdir()
    return found


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "last" / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    stop = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < stop, "it never came"
        time.sleep(0.05)
