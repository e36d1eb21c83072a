"""Start one process a device for a run, by torch's own launcher, and word how they ended.

The ranks get the path of a plan: the recipe with its places, and the run's folder. They never see the
command line, so a sweep cannot start inside a rank, and no rank can read it otherwise than another.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import tlcompile
from tlcompile.durable.files import write_file
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.ranks import (
    NotEnoughDevicesError,
    OtherRankCountError,
    PeerLostError,
    RankCrashedError,
    RankLostError,
)
from tlcompile.recipe.layers.plugins import allow_plugins, allowed_plugins
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.sent import from_plain, to_plain
from tlcompile.run.device import choose_device, device_type
from tlcompile.run.folder import read_record
from tlcompile.run.rank_errors import read_errors
from tlcompile.run.signals import ERRORS

SECONDS_TO_SAVE = "120"  # between a signal and SIGKILL: a checkpoint is written meanwhile
SIGNALS = "SIGTERM,SIGINT,SIGUSR1,SIGHUP,SIGQUIT"


@dataclass(frozen=True)
class Job:
    """What every rank trains.

    Attributes:
        recipe: The user's; its values keep their places.
        folder: Of the run.
        options: Of the command line, as the run's own code takes them.
    """

    recipe: Recipe
    folder: Path
    options: Mapping[str, Any]

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "recipe": to_plain(self.recipe),
            "folder": str(self.folder),
            "options": dict(self.options),
            "plugins": sorted(allowed_plugins()),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Job:
        """Return what `as_data` gave; the plug-ins that the user allowed are allowed here, too."""
        allow_plugins(data["plugins"])
        return cls(from_plain(data["recipe"]), Path(data["folder"]), data["options"])


def num_devices(recipe: Recipe) -> int:
    """Return how many devices `run.devices` means on this machine.

    Raises:
        NoDeviceError: It has none of that kind.
        NotEnoughDevicesError: It has not so many.
    """
    kind, wanted = device_type(recipe), recipe.run.devices
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind)
    if available == 0:
        choose_device(recipe)  # says which kinds there are
    if wanted == "auto":
        return available or 1
    if available is not None and wanted > available:
        key = ("run", "devices")
        error = NotEnoughDevicesError(kind=kind, wanted=wanted, available=available, key=key)
        raise error.at(recipe.where(key))
    return wanted


def refuse_other_count(recipe: Recipe, world: int) -> None:
    """Refuse a recipe that names another number of devices than ranks were started.

    Raises:
        OtherRankCountError: Someone else started the ranks, and not as many.
    """
    wanted = recipe.run.devices
    if "devices" in recipe.run.model_fields_set and wanted not in ("auto", world):
        key = ("run", "devices")
        error = OtherRankCountError(wanted=int(wanted), started=world, key=key)
        raise error.at(recipe.where(key))


def launch_ranks(job: Job, devices: int) -> dict[str, Any]:
    """Train on several devices of this machine; return the record when all ranks are done.

    Raises:
        TLCompileError: What a rank raised, first of all what the user can mend.
        RankLostError: A rank was killed.
    """
    # Here, because a run on one device does without: 0.1 s.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="tlcompile-") as scratch, _as_we_were():
        plan = Path(scratch) / "plan.json"
        write_file(plan, json.dumps(job.as_data()).encode())
        os.environ |= _environment(job, devices)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
            run_id="tlcompile",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.1,
            signals_to_handle=SIGNALS,
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "tlcompile.run.ranks", str(plan))
        except ChildFailedError as ended:
            exits = {rank: failure.exitcode for rank, failure in ended.failures.items()}
            raise _why(Path(scratch), exits, devices) from None
        except SignalException as stopped:
            saved = read_errors(Path(scratch))
            named = ERRORS.get(stopped.sigval, ERRORS[signal.SIGTERM])
            raise (saved[0] if saved else named(kept="the last checkpoint")) from None
    record = read_record(job.folder)
    assert record is not None
    return record


def _environment(job: Job, devices: int) -> dict[str, str]:
    """Return what the ranks find in their environment beside torch's own variables."""
    above = str(Path(tlcompile.__file__).parent.parent)
    path = os.environ.get("PYTHONPATH")
    found = {
        "PYTHONPATH": f"{above}{os.pathsep}{path}" if path else above,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SECONDS_TO_SAVE,
    }
    if device_type(job.recipe) == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        found["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // devices))
    return found


@contextmanager
def _as_we_were() -> Iterator[None]:
    """Put back what torch's launcher and we change in this process; its log says what we word."""
    environment = dict(os.environ)
    numbers = [getattr(signal, name) for name in SIGNALS.split(",")]
    handlers = {number: signal.getsignal(number) for number in numbers}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ |= environment


def _why(scratch: Path, exits: Mapping[int, int], world: int) -> TLCompileError:
    """Return the one error that ended the job: the others follow from it.

    What the user can mend comes first, then a rank that died without a word, then what nobody
    foresaw; a lost connection is what all others see of any of these.
    """
    told = read_errors(scratch)
    unforeseen = [error for error in told if isinstance(error, RankCrashedError | PeerLostError)]
    worded = {error.rank for error in unforeseen}
    lost = [
        RankLostError(rank=rank, world=world, how=_ended(code))
        for rank, code in sorted(exits.items())
        if rank not in worded and code not in (0, -signal.SIGTERM)
    ]
    crashed = [error for error in unforeseen if isinstance(error, RankCrashedError)]
    mendable = [error for error in told if error not in unforeseen]
    nobody = RankLostError(rank=0, world=world, how="ended")
    return [*mendable, *lost, *crashed, *unforeseen, nobody][0]


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
