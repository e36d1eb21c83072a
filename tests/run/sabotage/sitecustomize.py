"""What happens to one rank of a run, as SABOTAGE says; Python imports this where PYTHONPATH has it.

`kill:1:12`: rank 1 is killed before step 12. Each rank leaves its number in PIDS.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def sabotage(what: str, rank: str, when: int) -> None:
    from tlcompile.errors.data import UnreadableImagesError
    from tlcompile.training.step import Step

    step = Step.__call__

    def sabotaged(self: Step, batches: Any, samples: Any, micro_batch: int, state: Any) -> None:
        if what == "slow":
            time.sleep(0.2)
            (Path(os.environ["PIDS"]) / "steps").write_text(str(state.steps))
        elif state.steps == when and os.environ["RANK"] == rank:
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "raise":
                raise UnreadableImagesError(images=(("photo.jpg", "truncated"),))
            if what == "crash":
                raise ZeroDivisionError("nobody foresaw it")
            if what == "nan":
                batches[0][0][0][1] = float("nan")
        step(self, batches, samples, micro_batch, state)

    Step.__call__ = sabotaged  # type: ignore[method-assign]


if "RANK" in os.environ and "SABOTAGE" in os.environ:
    (Path(os.environ["PIDS"]) / f"{os.getpid()}.pid").touch()
    sabotage(*os.environ["SABOTAGE"].split(":")[:2], int(os.environ["SABOTAGE"].split(":")[2]))
