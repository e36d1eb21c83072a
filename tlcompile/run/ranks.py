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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.ranks import OtherRankCountError, RankCrashedError
from tlcompile.recipe.schema import Recipe
from tlcompile.run.importing import importing
from tlcompile.run.signals import stoppable

with importing():
    from tlcompile.run.launch import Job, tell_launcher
    from tlcompile.run.single import train_job
    from tlcompile.training.ranks import Ranks, join_ranks

LOST_LAUNCHER = 1  # exit code of a rank whose launcher has died


def main(path: str) -> int:
    """Train the job of a plan as one of its ranks; return the exit code."""
    _end_with_parent()
    job = Job.from_data(json.loads(Path(path).read_bytes()))
    return as_rank(lambda ranks: train_job(job, ranks))


def compose_once(run: Callable[[Ranks], Any]) -> int:
    """Under torchrun: the first rank composes the recipe, the others wait for its job.

    Args:
        run: Composes, chooses a folder and trains, on the first rank.
    """

    def work(ranks: Ranks) -> None:
        if ranks.is_first:
            run(ranks)
        else:
            told = ranks.first_says(None)
            if told is not None:
                train_job(Job.from_data(told), ranks)

    return as_rank(work)


def as_rank(work: Callable[[Ranks], Any]) -> int:
    """Do the work of one rank: the first alone speaks, and an error goes to the launcher."""
    ranks = join_ranks()
    try:
        with _quiet(ranks), stoppable():
            work(ranks)
    except TLCompileError as error:
        return _fail(ranks, error)
    except Exception as error:
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        lines = f"{type(error).__name__}: {error}".splitlines()
        reason = lines[0]
        return _fail(ranks, RankCrashedError(rank=ranks.rank, world=ranks.world, reason=reason))
    ranks.close()
    return 0


def _fail(ranks: Ranks, error: TLCompileError) -> int:
    """Leave at once, without a word to the other ranks: whoever started us ends them."""
    if not tell_launcher(error, time.time()):
        print(error, file=sys.stderr)
    sys.stdout.flush()
    if ranks.world > 1:  # Python's own end would wait for messages that never come
        os._exit(error.exit_code)
    return error.exit_code


@contextlib.contextmanager
def _quiet(ranks: Ranks) -> Iterator[None]:
    """Silence a rank that is not the first: no line, no bar, no warning twice."""
    if ranks.is_first:
        yield
        return
    with contextlib.redirect_stdout(Nowhere()), contextlib.redirect_stderr(Nowhere()):
        yield


class Nowhere(io.TextIOBase):
    """Forgets what is printed."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)


def _end_with_parent() -> None:
    """End this rank soon after its launcher, which may be killed without time to end us."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(LOST_LAUNCHER)

    threading.Thread(target=watch, daemon=True).start()


def refuse_other_count(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse a recipe that names another number of devices than there are ranks.

    Raises:
        OtherRankCountError: Someone else started the ranks, and not as many.
    """
    wanted = recipe.run.devices
    if "devices" in recipe.run.model_fields_set and wanted not in ("auto", ranks.world):
        key = ("run", "devices")
        error = OtherRankCountError(wanted=int(wanted), started=ranks.world, key=key)
        raise error.at(recipe.where(key))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
