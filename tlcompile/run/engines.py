"""Send the points of a sweep to a launcher of Hydra's: joblib's, submitit's, Ray's, or any other.

The launcher starts workers. Each runs one plan after the other, every point in a process of its own:
what ends a point leaves its worker, and a worker imports no torch.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from tlcompile.durable.files import write_file
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.engines import (
    IdleLauncherSettingsError,
    LauncherFailedError,
    MissingPluginError,
    OtherLauncherError,
    WrongDirectionError,
)
from tlcompile.recipe.hydra_text import quote
from tlcompile.recipe.tasks import default_monitor
from tlcompile.run.isolated import STOP, folder_of, is_over, plan_point, work
from tlcompile.run.say import say
from tlcompile.run.signals import Stop, stopping

if TYPE_CHECKING:
    from tlcompile.recipe.schema import Recipe
    from tlcompile.run.launch import Job

# What installs a launcher or a sweeper of Hydra's. An extra of ours where there is one.
PACKAGES: Final = {
    "joblib": "'tlcompile[parallel]'",
    "submitit_local": "'tlcompile[slurm]'",
    "submitit_slurm": "'tlcompile[slurm]'",
    "ray": "'tlcompile[ray]'",
    "optuna": "'tlcompile[optuna]'",
    "ax": "hydra-ax-sweeper",
    "nevergrad": "hydra-nevergrad-sweeper",
}
_CHOICE = re.compile(r"hydra/launcher=(.+)")
# The settings of sweepers that say what they look for: key, value where higher is better, else.
_DIRECTIONS: Final = (
    ("direction", "maximize", "minimize"),
    ("optim.maximize", True, False),
    ("ax_config.experiment.minimize", False, True),
)
ROUNDS: Final = 2  # a point whose worker was lost runs once more


@dataclass(frozen=True)
class Engine:
    """A launcher of Hydra's.

    Attributes:
        launcher: Its name.
        settings: The user's, `hydra.launcher.key=value`.
        context: Hydra's, of this command.
        config: Hydra's, of this command.
    """

    launcher: str
    settings: tuple[str, ...]
    context: HydraContext
    config: DictConfig

    def check(self) -> None:
        """Refuse settings that the launcher does not have, before anything is written.

        Raises:
            HydraException: It names them.
        """
        self._composed(Path())

    def run(self, jobs: Sequence[Job], ended: Callable[[Job], None]) -> None:
        """Run points until each has ended; run/isolated.py tells how.

        Args:
            jobs: Of the points.
            ended: Called, by another thread, for each that has ended, well or not.

        Raises:
            LauncherFailedError: It could not start.
            StoppedError: A signal asked for it; points that ran have saved.
        """
        above = folder_of(jobs[0]).parent
        config = self._composed(above)
        plans = {job.folder: plan_point(job) for job in jobs}
        waiting = list(jobs)
        with stopping() as stop:
            for _ in range(ROUNDS):
                with _watching(jobs, above, stop, ended):
                    reason = self._launch(config, [plans[job.folder] for job in waiting])
                waiting = [job for job in waiting if not is_over(job)]
                if not waiting or stop.asked:
                    break
                if len(waiting) == len(jobs) and reason is not None:
                    text = f"{type(reason).__name__}: {reason}"
                    raise LauncherFailedError(launcher=self.launcher, reason=text)

    def _launch(self, config: DictConfig, plans: Sequence[Path]) -> Exception | None:
        """Run plans; return what the launcher raised, which says nothing of single points."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=work, config=config
        )
        try:
            launcher.launch([[f"++plan={quote(str(plan))}"] for plan in plans], 0)
        except Exception as error:
            return error
        return None

    def _composed(self, folder: Path) -> DictConfig:
        return self.context.config_loader.load_configuration(
            config_name=self.config.hydra.job.config_name,
            overrides=[
                *(text for text in self.config.hydra.overrides.hydra if "hydra.mode" not in text),
                f"hydra/launcher={self.launcher}",
                f"hydra.sweep.dir={quote(str(folder))}",
                *self.settings,
            ],
            run_mode=RunMode.MULTIRUN,
        )


def engine_of(
    recipe: Recipe, for_launcher: Sequence[str], context: HydraContext, config: DictConfig
) -> Engine | None:
    """Return where points go that need not share this process; None: nowhere.

    Args:
        recipe: Of any point.
        for_launcher: `hydra/launcher=NAME` and `hydra.launcher.key=value`, as the user typed them.
        context: Hydra's.
        config: Hydra's.

    Raises:
        RunError: The launcher is not there, or none would read the settings.
    """
    key = ("sweep", "engine")
    named = [match[1] for match in map(_CHOICE.fullmatch, for_launcher) if match]
    settings = tuple(text for text in for_launcher if not _CHOICE.fullmatch(text))
    engine = recipe.sweep.engine
    if engine != "in_process" and named and not named[-1].startswith(engine):
        error = OtherLauncherError(engine=engine, launcher=named[-1], key=key)
        raise error.at(recipe.where(key))
    launcher = named[-1] if named else _launcher_of(engine)
    if launcher in ("in_process", "tlcompile"):
        if settings:
            raise IdleLauncherSettingsError(settings=settings, multirun=True)
        return None
    refuse_missing("launcher", launcher, None if named else recipe)
    return Engine(launcher, settings, context, config)


def _launcher_of(engine: str) -> str:
    if engine != "submitit":
        return engine
    return "submitit_slurm" if shutil.which("sbatch") else "submitit_local"


def refuse_missing(kind: str, name: str, recipe: Recipe | None = None) -> None:
    """Refuse a launcher or a sweeper that is not installed.

    Args:
        kind: launcher or sweeper.
        name: Hydra's.
        recipe: Names it as its engine; None: the command line does.

    Raises:
        MissingPluginError: It is not.
    """
    Plugins.instance()  # reads what is installed
    known = [file.removesuffix(".yaml") for file in ConfigStore.instance().list(f"hydra/{kind}")]
    if name not in known:
        key = ("sweep", "engine") if recipe else ()
        package = PACKAGES.get(name, "")
        error = MissingPluginError(
            kind=kind, name=name, known=tuple(sorted(known)), package=package, key=key
        )
        raise error.at(recipe.where(key) if recipe else None)


def refuse_wrong_direction(sweeper: DictConfig, recipe: Recipe) -> None:
    """Refuse a search for the worst value: sweepers minimise where they are told nothing.

    Args:
        sweeper: Its settings; those of Optuna, Nevergrad and Ax are known.
        recipe: Of any point.

    Raises:
        WrongDirectionError: It is one.
    """
    from tlcompile.run.objective import metrics_known  # torch, which a worker does without

    tasks = recipe.output_tasks()
    default = default_monitor(tasks[""].task) if "" in tasks else "loss"
    monitor = recipe.fine_tune.monitor or f"val/{default}"
    rises = metrics_known(recipe, None)[monitor.partition("/")[2]]
    values = {key: OmegaConf.select(sweeper, key) for key, *_ in _DIRECTIONS}
    for key, up, down in _DIRECTIONS:
        found = getattr(values[key], "name", values[key])
        if found in (up, down) and found != (up if rises else down):
            wanted = f"hydra.sweeper.{key}={str(up if rises else down).lower()}"
            setting = f"hydra.sweeper.{key}={str(found).lower()}"
            raise WrongDirectionError(monitor=monitor, higher=rises, setting=setting, wanted=wanted)


@contextmanager
def _watching(
    jobs: Sequence[Job], above: Path, stop: Stop, ended: Callable[[Job], None]
) -> Iterator[None]:
    """Say which points have ended, and tell workers when a signal came: the launcher only waits."""
    over = threading.Event()

    def watch() -> None:
        waiting = [job for job in jobs if not is_over(job)]
        while not over.wait(0.3):
            if stop.asked:
                write_file(above / STOP, b"")
            waiting = still(waiting)
        still(waiting)

    def still(waiting: Sequence[Job]) -> list[Job]:
        over = [job for job in waiting if is_over(job)]
        for job in over:
            say(f"ended {time.strftime('%H:%M:%S')}  {job.folder.name}")
            with contextlib.suppress(TLCompileError):  # of a full disk the next write tells
                ended(job)
        return [job for job in waiting if job not in over]

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
