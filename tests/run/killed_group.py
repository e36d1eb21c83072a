"""Kill points that train as one, in children of a process that has only imported things.

A script, for test_sweep_fused.py: a process that has computed must not be forked.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torchmetrics.classification  # noqa: F401
from reliability.forked_training import do_not_wait

from run.test_sweep_fused import swept
from tlcompile.run import fit, sweep_fused  # noqa: F401
from tlcompile.run.saving import Saving
from tlcompile.training.fused_block import Block

MOMENTS: dict[str, tuple[Any, str, int]] = {
    "in_a_step": (Block, "take", 3),
    "between_two": (Saving, "save", 6),
    "at_the_end": (sweep_fused._Point, "finish", 3),
}


def child(folder: Path, moment: str | None) -> int:
    """Run the sweep in a child; return how that ended."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            if moment:
                killed_in(*MOMENTS[moment])
            swept(folder)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_in(owner: Any, name: str, call: int) -> None:
    """Kill this process inside the n-th call of a method; each step is saved."""
    method, calls = getattr(owner, name), [0]

    def called(*values: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*values, **named)

    setattr(owner, name, called)
    Saving.is_due = lambda self: True  # type: ignore[method-assign]


def finished(folder: Path) -> dict[str, int]:
    """Return when the record of each finished point was written."""
    paths = [p for p in folder.glob("*/record.json") if "finished" in p.read_text()]
    return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def main(ground: Path) -> dict[str, Any]:
    """Kill a sweep at each moment, and let it come to its end; return what was finished."""
    torch.set_num_threads(1)
    do_not_wait()
    os.chdir(ground)
    sys.stdout, told = sys.stderr, {}
    for moment in MOMENTS:
        assert child(ground / moment, moment) == -signal.SIGKILL
        before = finished(ground / moment)
        assert child(ground / moment, None) == 0
        after = finished(ground / moment)
        again = [name for name, at in before.items() if after[name] != at]
        told[moment] = {"finished": len(before), "again": again}
    return told


if __name__ == "__main__":
    out = sys.stdout
    out.write(f"{json.dumps(main(Path(sys.argv[1])))}\n")
