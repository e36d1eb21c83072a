"""Follow a run: events.jsonl, and the trackers that the recipe names. None of them can end it."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlcompile.durable.files import append_line, write_file
from tlcompile.errors.base import TLCompileError, one_line
from tlcompile.errors.resume import StoppedError
from tlcompile.errors.training import ExtraNotInstalledError
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import resolved
from tlcompile.run.signals import Stopping
from tlcompile.run.tracking.mlflow import MLflow
from tlcompile.run.tracking.tensorboard import TensorBoard
from tlcompile.run.tracking.tracker import Followed, State, Tracker
from tlcompile.run.tracking.wandb import WandB
from tlcompile.training.state import EpochRow, TrainingState

EVENTS = "events.jsonl"
NAMES = "tracking.json"  # by which name each tracker knows the run
TRACKERS: dict[str, Callable[[], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
WARNING = "warning"  # how lines begin that are events too


def refuse_missing_trackers(recipe: Recipe) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        ExtraNotInstalledError: With the command that installs it.
    """
    for place, name in enumerate(recipe.run.track):
        if importlib.util.find_spec(name) is None:
            key = ("run", "track", place)
            wanted_by = f"run.track: {name}"
            error = ExtraNotInstalledError(package=name, extra=name, wanted_by=wanted_by, key=key)
            raise error.at(recipe.where(key) or recipe.where(("run", "track")))


class Following:
    """Tells events.jsonl and the trackers what happens.

    Args:
        folder: The run's own.
        recipe: What the user asked for.
        say: Takes lines for the user.
        writes: Whether this process does; of several ranks the first.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, say: Callable[[str], None], *, writes: bool = True
    ) -> None:
        self.folder, self.recipe, self._say, self._writes = folder, recipe, say, writes
        self._trackers: dict[str, Tracker] = {}
        self._state: TrainingState | None = None
        self._halvings = 0
        self._before: list[tuple[str, dict[str, Any]]] = []  # there is a folder

    def say(self, line: str) -> None:
        """Say a line; a warning is an event too."""
        self._say(line)
        if line.startswith(WARNING):
            self.event("warning", text=line.removeprefix(WARNING).strip())

    @contextlib.contextmanager
    def open(self, state: TrainingState) -> Iterator[None]:
        """Follow the run as long as the block lasts; its folder is there.

        Args:
            state: Where training stands; every event has its epoch and step.
        """
        self._state, self._halvings = state, state.halvings
        for kind, facts in self._before:
            self.event(kind, **facts)
        self.event("resumed" if state.steps else "began")
        self._begin(state)
        try:
            yield
        except BaseException as error:
            end: State = "stopped" if _is_stop(error) else "failed"
            with contextlib.suppress(TLCompileError):  # a full disk must not hide why it ended
                self.event(end, text=_headline(error))
            self._end(end)
            raise
        self.event("finished")
        self._end("finished")

    def event(self, kind: str, **facts: Any) -> None:
        """Write down what happened, with the time, the epoch and the step that were running."""
        state = self._state
        if not self._writes:
            return
        if state is None:
            self._before.append((kind, facts))
            return
        epoch = len(state.history) + 1
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        where = {"epoch": epoch, "step": state.step + 1}
        line = json.dumps({"time": now, "event": kind, **where, **facts})
        append_line(self.folder / EVENTS, line)
        text = " ".join([kind, *map(str, facts.values())])
        self._each(lambda tracker: tracker.event(text, epoch))

    def epoch(self, row: EpochRow) -> None:
        """Tell the numbers of an epoch; metrics.csv has them already."""
        self._each(lambda tracker: tracker.epoch(row))

    def look(self) -> None:
        """Note whether memory has run out since the last look."""
        state = self._state
        if state is not None and state.halvings > self._halvings:
            self._halvings = state.halvings
            self.say(
                f"{WARNING}     memory ran out: {2**state.halvings} times less at once from now on"
            )

    def _begin(self, state: TrainingState) -> None:
        known = _read_names(self.folder / NAMES)
        recipe, epochs = resolved(self.recipe), len(state.history)
        names: dict[str, str | None] = {}
        for name in self.recipe.run.track if self._writes else ():
            run = Followed(self.folder, recipe, epochs, known.get(name))
            self._trackers[name] = TRACKERS[name]()
            self._guarded(name, lambda tracker: names.update({name: tracker.begin(run)}))  # noqa: B023, called now
        if names and names != known:
            write_file(self.folder / NAMES, json.dumps(names).encode())

    def _end(self, state: State) -> None:
        self._each(lambda tracker: tracker.end(state))
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name in [*self._trackers]:
            if name in self._trackers:  # the failure of one is told to the others
                self._guarded(name, call)

    def _guarded(self, name: str, call: Callable[[Tracker], None]) -> None:
        """Let a tracker do something; one that fails is left out from then on."""
        try:
            call(self._trackers[name])
        except Exception as error:
            del self._trackers[name]
            why = one_line(f"{type(error).__name__}: {error}", 200)
            self.say(f"{WARNING}     {name} failed, the run goes on without it: {why}")


def _is_stop(error: BaseException) -> bool:
    return isinstance(error, Stopping | StoppedError | KeyboardInterrupt)


def _headline(error: BaseException) -> str:
    return error.headline() if isinstance(error, TLCompileError) else type(error).__name__


def _read_names(path: Path) -> Mapping[str, str | None]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
