"""Start a program as two processes that find each other, as torchrun would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

TESTS = Path(__file__).parent.parent


class Two:
    """What two processes left."""

    def __init__(self, folder: Path) -> None:
        self.told = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
        self.tensors = [load_file(folder / f"{rank}.safetensors") for rank in range(2)]

    def weights(self, case: str, rank: int = 0) -> dict[str, Tensor]:
        found = self.tensors[rank].items()
        return {n.removeprefix(f"{case}/"): t for n, t in found if n.startswith(f"{case}/")}


def run_two(program: str, folder: Path, *words: str) -> Two:
    """Run `program folder words` twice; return what it left in the folder."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost",
               "MASTER_PORT": port, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
               "OMP_NUM_THREADS": 1}  # fmt: skip
        environment = os.environ | {name: str(value) for name, value in own.items()}
        line = [sys.executable, "-W", "error", program, str(folder), *words]
        started.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
    return Two(folder)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of weights."""
    assert one.keys() == other.keys()
    assert one
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)
