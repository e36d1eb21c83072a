"""What each process of a run on several devices does; started by run/launch.py, or by torchrun.

python -m tlcompile.run.ranks PLAN
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.ranks import PeerLostError, RankCrashedError
from tlcompile.run.importing import importing
from tlcompile.run.rank_errors import write_error
from tlcompile.run.signals import stoppable

if TYPE_CHECKING:
    from tlcompile.training.ranks import Ranks

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # torch's launcher names a file for a rank's error in it
LOST_LAUNCHER = 1  # exit code of a rank whose launcher has died


def main(path: str) -> int:
    """Train the job of a plan as one of its ranks; return the exit code."""
    _end_with_parent()

    def work() -> None:
        with importing():  # torch; here, as signals are waited for by now
            from tlcompile.run.launch import Job
            from tlcompile.run.single import train_job
            from tlcompile.training.ranks import join_ranks
        job = Job.from_data(json.loads(Path(path).read_bytes()))
        ranks = join_ranks()
        train_job(job, ranks)
        ranks.close()

    return as_rank(work)


def compose_once(compose: Callable[[Ranks], Any]) -> int:
    """Under torchrun: the first rank composes the recipe, the others wait for its job.

    Args:
        compose: Composes the recipe, tells the job, or None where nothing is to be done, by
            `ranks.first_says`, and trains it; on the first rank alone.
    """

    def work() -> None:
        from tlcompile.run.launch import Job
        from tlcompile.run.single import train_job
        from tlcompile.training.ranks import join_ranks

        ranks = join_ranks()
        if ranks.is_first:
            compose(ranks)
        elif (told := ranks.first_says(None)) is not None:
            train_job(Job.from_data(told), ranks)
        ranks.close()

    return as_rank(work)


def as_rank(work: Callable[[], Any]) -> int:
    """Do the work of one rank: the first alone speaks, and an error goes to the launcher."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        with _quiet(rank), stoppable():
            work()
    except TLCompileError as error:
        _leave(error)
    except Exception as error:
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            traceback.print_exc()
        kind = PeerLostError if _is_lost_connection(error) else RankCrashedError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _leave(kind(rank=rank, world=world, reason=reason))
    return 0


def _is_lost_connection(error: Exception) -> bool:
    """Tell whether a message between ranks failed; gloo says so by plain RuntimeErrors."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _leave(error: TLCompileError) -> None:
    """End at once, without a word to the other ranks: whoever started us ends them.

    Python's own end would wait for messages that never come.
    """
    path = os.environ.get(ERROR_FILE)
    if path:
        write_error(Path(path), error)
    else:
        print(error, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.exit_code)


@contextlib.contextmanager
def _quiet(rank: int) -> Iterator[None]:
    """Silence a rank that is not the first: no line, no bar, no warning twice."""
    if rank == 0:
        yield
        return
    with contextlib.redirect_stdout(_Nowhere()), contextlib.redirect_stderr(_Nowhere()):
        yield


class _Nowhere(io.TextIOBase):
    """Forgets what is printed."""

    def write(self, text: str) -> int:
        return len(text)


def _end_with_parent() -> None:
    """End this rank soon after its launcher, which may be killed without time to end us."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(LOST_LAUNCHER)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
