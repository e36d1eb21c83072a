"""Hydra launches: one run, or every point of a sweep. The recipe itself never enters Hydra.

Hydra parses the overrides (as text that only we read), multiplies sweeps into points, and launches.
Its composed config is empty but for them, so a recipe cannot reach Hydra's own settings; each job
applies its overrides to the recipe's own tree, where every value keeps its file, line and column.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tlcompile.errors.engines import IdleLauncherSettingsError
from tlcompile.errors.recipe import OverrideSyntaxError
from tlcompile.errors.run import HydraRefusedError
from tlcompile.recipe.flow import to_flow
from tlcompile.recipe.hydra_text import from_hydra, to_hydra_arguments
from tlcompile.recipe.load import default_name, read_recipe, recipe_from
from tlcompile.recipe.nodes import Mapping
from tlcompile.recipe.overrides import Override, is_sweep
from tlcompile.recipe.schema import Recipe
from tlcompile.run.engines import refuse_missing
from tlcompile.run.say import say


def _config(scratch: str) -> dict[str, Any]:
    """Return the config that Hydra composes; what it writes of its own goes to a scratch folder."""
    return {
        "defaults": [
            "_self_",
            {"override hydra/launcher": "tlcompile"},
            {"override hydra/job_logging": "none"},
            {"override hydra/hydra_logging": "none"},
        ],
        "hydra": {
            "output_subdir": None,
            "run": {"dir": scratch},
            "sweep": {"dir": scratch, "subdir": "."},
        },
    }


@dataclass
class Session:
    """What one command launches; the launcher plug-in and the jobs look it up here.

    Attributes:
        root: The recipe's tree, short forms spelled out.
        path: The recipe's file.
        typed: The overrides as typed, which lend their places to errors.
        run_one: Trains one recipe; its result is kept.
        run_points: Trains the points of a sweep.
        for_launcher: What the user's command line says of Hydra's launcher.
        searches: Whether the sweeper chooses points by the results of others.
        results: Of the run; or the rows of the sweep, after each batch anew.
        folder: Of the sweep.
        known: The rows of a search, by the digest of the recipe.
        shared: What its points have made so far: a sweeper may ask for them batch by batch.
    """

    root: Mapping
    path: str
    typed: Sequence[Override]
    run_one: Callable[[Recipe], Any]
    run_points: Callable[..., Any]
    for_launcher: tuple[str, ...] = ()
    searches: bool = False
    results: list[Any] = field(default_factory=list)
    folder: Path | None = None
    known: dict[str, Any] = field(default_factory=dict)
    shared: Any = None

    def recipe(self, texts: Sequence[str]) -> Recipe:
        """Return the recipe of one job, from the overrides that Hydra gave it."""
        found = map(self._chosen, self._as_ordered(texts))
        return recipe_from(self.root, found, default_name(self.path))

    def _as_ordered(self, texts: Sequence[str]) -> list[str]:
        """Put overrides back in the user's order: a sweeper may move what it sweeps, and last wins."""
        order = [text.partition("=")[0] for text in to_hydra_arguments(self.typed)]
        place = {key: number for number, key in enumerate(order)}
        return sorted(texts, key=lambda text: place.get(text.partition("=")[0], len(order)))

    def point(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the values of one job that the sweep chose, as `key=value` texts."""
        fixed = {override.key for override in self.typed if not is_sweep(override)}
        found = map(self._chosen, self._as_ordered(texts))
        return tuple(f"{o.key}={to_flow(o.values[0])}" for o in found if o.key not in fixed)

    def _chosen(self, text: str) -> Override:
        """Read one override back; a value that the user typed twice comes as often."""
        override = from_hydra(text, self.typed)
        return replace(override, values=override.values[:1])


_OF_LAUNCHER = re.compile(r"(\+\+?|~)?hydra[./]launcher\b")
SESSION: list[Session] = []  # the command that this process runs; Hydra gives no way to pass it


def launch(
    session: Session, overrides: Sequence[Override], for_hydra: Sequence[str], multirun: bool
) -> list[Any]:
    """Compose and launch through Hydra; return what the jobs returned.

    Args:
        session: What is launched.
        overrides: Of the recipe.
        for_hydra: Of Hydra itself, from the user's own command line.
        multirun: Whether sweeps are meant (-m).

    Raises:
        OverrideSyntaxError: A sweep without -m, or one that Hydra's own sweeper cannot expand.
        HydraRefusedError: What Hydra says of its own settings.
        TLCompileError: What the jobs raised.
    """
    _refuse_wrong_sweeps(overrides, for_hydra, multirun)
    session, for_hydra = _for_hydra(session, for_hydra, multirun)
    argv = ["tlcompile", *(["-m"] if multirun else []), *for_hydra, *to_hydra_arguments(overrides)]
    SESSION.append(session)
    caught: list[BaseException] = []
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            mock.patch.object(sys, "argv", argv),
            # Hydra raises then; else it prints a traceback of its own and ends the process.
            mock.patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}),
        ):
            ConfigStore.instance().store("tlcompile", _config(scratch), provider="tlcompile")
            hydra.main(version_base="1.3", config_path=None, config_name="tlcompile")(
                lambda config: _job(config, session, caught)
            )()
    except (HydraException, OmegaConfBaseException) as error:
        raise HydraRefusedError(reason=str(error), settings=tuple(for_hydra)) from error
    except Exception as error:
        if not session.known:
            raise
        say(f"the sweeper ended the search: {error}")  # as Optuna's without one result
    finally:
        SESSION.remove(session)
    if caught:
        raise caught[0]
    return session.results


def _for_hydra(session: Session, given: Sequence[str], multirun: bool) -> tuple[Session, list[str]]:
    """Return what Hydra itself is told: its launcher is ours, and ours takes what is of another.

    Raises:
        MissingPluginError: The sweeper is not installed.
        IdleLauncherSettingsError: A launcher is told something, and there is one run.
    """
    of_launcher = tuple(text for text in given if _OF_LAUNCHER.match(text))
    if of_launcher and not multirun:
        raise IdleLauncherSettingsError(settings=of_launcher, multirun=False)
    rest = [text for text in given if text not in of_launcher]
    sweepers = [text.partition("=")[2] for text in rest if text.startswith("hydra/sweeper=")]
    if sweepers:
        refuse_missing("sweeper", sweepers[-1])
    if sweepers[-1:] == ["optuna"] and not any("max_failure_rate" in text for text in rest):
        rest.append("hydra.sweeper.max_failure_rate=1.0")  # its own: one failed point ends all
    searches = bool(sweepers) and sweepers[-1] != "basic"
    return replace(session, for_launcher=of_launcher, searches=searches), rest


def _refuse_wrong_sweeps(
    overrides: Sequence[Override], for_hydra: Sequence[str], multirun: bool
) -> None:
    own_sweeper = any(text.startswith("hydra/sweeper") for text in for_hydra)
    for override in filter(is_sweep, overrides):
        if not multirun:
            reason, advice = "several values are a sweep", "add -m"
        elif override.function.startswith("interval(") and not own_sweeper:
            reason = "interval(...) needs a sweeper that chooses points, such as Optuna's"
            advice = f"{override.key}=a,b,c or {override.key}=range(start,stop,step)"
        else:
            continue
        where = override.span_of_value
        raise OverrideSyntaxError(text=override.text, reason=reason, advice=advice, where=where)


def _job(_config: DictConfig, session: Session, caught: list[BaseException]) -> Any:
    """Run one job. Errors are kept for the caller: Hydra would print a traceback of its own."""
    try:
        texts = HydraConfig.get().overrides.task
        result = session.run_one(session.recipe(texts))
        session.results.append(result)
        return result
    except BaseException as error:
        caught.append(error)
        return None


def open_session(
    path: str,
    typed: Sequence[Override],
    run_one: Callable[[Recipe], Any],
    run_points: Callable[..., Any],
) -> Session:
    """Read the recipe and prepare a launch."""
    return Session(read_recipe(Path(path)), path, typed, run_one, run_points)
