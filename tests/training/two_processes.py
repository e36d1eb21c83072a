"""Start a program as two processes that find each other, as torchrun would.

    python two_processes.py PROGRAM FOLDER WORDS...

is a process that imports the program once, and is forked before it computes: importing is most of the work.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

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
    own = {"WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": 1,
           "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}  # fmt: skip
    environment = os.environ | {name: str(value) for name, value in own.items()}
    line = [sys.executable, "-W", "error", __file__, program, str(folder), *words]
    done = subprocess.run(
        line, env=environment, stderr=subprocess.PIPE, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return Two(folder)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of weights."""
    assert one.keys() == other.keys()
    assert one
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def forked(program: str, folder: Path, *words: str) -> int:
    """Run the program in two children; return how many of them failed."""
    main = importlib.import_module(Path(program).stem).main
    children = [os.fork() or _rank(rank, lambda: main(folder, *words)) for rank in range(2)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _rank(rank: int, work: Callable[[], None]) -> NoReturn:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(forked(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
