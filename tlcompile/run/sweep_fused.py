"""Train points that differ in numbers alone as one model; each gets the folder that it gets alone."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from torch import Tensor

from tlcompile.compiler import PLACEHOLDER_CLASSES
from tlcompile.durable.files import make_folder
from tlcompile.durable.generations import sweep_temporaries
from tlcompile.features.tiers import free_memory
from tlcompile.run.costs import costs_of
from tlcompile.run.finishing import finish
from tlcompile.run.folder import add_row, begin, only_here
from tlcompile.run.groups import groups_of
from tlcompile.run.launch import Job
from tlcompile.run.opening import conditions_of, open_run
from tlcompile.run.plan import make_plan
from tlcompile.run.plan_text import plan_text
from tlcompile.run.saving import Saving, load_into
from tlcompile.run.shared import Shared
from tlcompile.run.signals import Stop, stopping
from tlcompile.run.splits import Say
from tlcompile.run.tracking.following import Following
from tlcompile.run.trust import warn_of_no_value, warn_of_start, warn_of_unmoved
from tlcompile.training.fused import FusedEpoch, FusedTrainer, Halved, NoRoomError
from tlcompile.training.fused_block import Member
from tlcompile.training.fused_failed import Failed
from tlcompile.training.judged import judged_of
from tlcompile.training.loop import EpochDone, PhaseTrainer, Stepped
from tlcompile.training.proof import frozen_digests

Ended = Callable[[int, dict[str, Any] | Exception, float], None]

# Of the weights that train, a point: where it begins, in its model, among the others, as gradients, in
# a checkpoint, and as they were best.
COPIES: Final = 6


class _Point:
    """A member's run: its folder, its checkpoints, its place among the others.

    Attributes:
        number: Of the point.
        seconds: Spent on it so far; those of training are its share.
        trainer: What would train it alone: its numbers and its rows.
        fused: What trains it now.
        failed: Whether it is out.
    """

    def __init__(self, number: int, job: Job, shared: Shared, say: Say) -> None:
        began = time.perf_counter()
        self.number, self.name, self.job = number, str(number), job
        self.following = Following(job.folder, job.recipe, say)
        self.phases = open_run(
            job.recipe, job.folder, swept=True, shared=shared, say=self.following.say
        )
        self.model, self.state = self.phases.models[0], self.phases.state
        self.stack, self.phase = contextlib.ExitStack(), contextlib.ExitStack()
        self.loaded: Mapping[str, Tensor] = {}
        self.fused: FusedTrainer | None = None
        self.trainer: PhaseTrainer | None = None
        self.failed = False
        self.seconds = time.perf_counter() - began

    def open(self) -> None:
        """Take the folder, and go on from where an earlier process has come."""
        began, recipe, folder = time.perf_counter(), self.job.recipe, self.job.folder
        make_folder(folder)
        self.stack.enter_context(only_here(folder))
        sweep_temporaries(folder)
        options = self.job.options
        self.saving = Saving(
            folder, self.phases, conditions_of(self.phases), self.following.say,
            inexact=bool(options.get("inexact")),
        )  # fmt: skip
        self.phases.say_shared()
        if not self.saving.resume(never_anew=bool(options.get("never_anew"))):
            sizes = self.phases.splits.sizes()
            plan = plan_text(recipe, make_plan(recipe, self.model, sizes))
            begin(folder, recipe, plan, self.model.tensors(), self.phases.objective)
        self.stack.enter_context(self.following.open(self.state))
        if self.state.phase == 0:
            self._open_phase()
        self.seconds += time.perf_counter() - began

    def _open_phase(self) -> None:
        self.proof = self.saving.proof or self.phases.proof(0)
        self.proof.waiting.clear()  # a batched product has a gradient for every weight
        self.following.event("phase begins", phase=self.phases.names()[0])
        self.trainer = self.phase.enter_context(self.phases.open(0, self.proof))
        self.saving.began(self, self.proof)  # type: ignore[arg-type]

    # What Saving asks of a trainer

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what a checkpoint has of the phase; all members take it over at once."""
        self.loaded = {f"{self.name}/{name}": tensor for name, tensor in tensors.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Return what a trainer of its own would save."""
        assert self.fused is not None
        own = f"{self.name}/"
        every = {
            n.removeprefix(own): t for n, t in self.fused.tensors().items() if n.startswith(own)
        }
        return {name: tensor for name, tensor in every.items() if not name.startswith("model/")}

    def sums(self) -> dict[str, Tensor]:
        """Return its sums of the running epoch."""
        return {name: t for name, t in self.tensors().items() if name.startswith("running")}

    # What the group does

    def member(self) -> Member:
        """Return it as a member of a group."""
        assert self.trainer is not None
        weights = {name: p.detach().clone() for name, p in self.model.trainable()}
        return Member(
            self.name, weights, groups_of(self.job.recipe, self.model), self.trainer.settings,
            self.phases.objective, self.trainer.schedule, self.state,
        )  # fmt: skip

    def weights_there(self) -> dict[str, Tensor]:
        """Return what a resume needs beside the state."""
        own = {f"{self.name}/model/{n}": p.detach() for n, p in self.model.trainable()}
        return {**self.loaded, **own}

    def epoch(self, done: EpochDone) -> None:
        """Note an epoch, as a run of its own does."""
        assert self.fused is not None
        assert self.trainer is not None
        self.saving.note_best(done)
        objective = self.phases.objective
        if done.is_best and done.row.val is not None:
            scoring = self.fused.scoring(self.name)
            assert scoring is not None
            self.saving.note_judged(judged_of(scoring, objective, done.row.val))
        add_row(self.saving.folder, done.row, objective)
        self.following.epoch(done.row)
        warn_of_no_value(self.state, self.trainer.settings.monitor, self.following.say)
        self.seconds += done.row.seconds

    def look(self) -> None:
        """Note what the very first step says."""
        warn_of_start(self.state, self.phases.objective, self.model, self.following.say)

    def save(self) -> None:
        """Save where it stands."""
        assert self.fused is not None
        load_into(self.model, self.fused.weights(self.name))
        self.saving.save()

    def finish(self, hashed: dict[tuple[int, ...], dict[str, str]]) -> dict[str, Any]:
        """End its phase and its run; return the record.

        Args:
            hashed: Digests of what is frozen, by where it lies: members share that memory.
        """
        began = time.perf_counter()
        self.phase.close()
        if self.state.phase == 0:
            assert self.fused is not None
            load_into(self.model, self.fused.weights(self.name))
            state, frozen = self.model.state_dict(), self.model.frozen.tensors
            place = tuple(state[name].data_ptr() for name in sorted(frozen & state.keys()))
            if place not in hashed:
                hashed[place] = frozen_digests(self.model)
            self.saving.proofs.append(self.proof.check(self.model, hashed[place]))
            self.following.say(f"freeze proof: {self.saving.proofs[-1]}")
            warn_of_unmoved(self.proof, self.model, self.following.say)
            self.following.event("phase ends", phase=self.phases.names()[0])
            with stopping():
                self.saving.finish_phase(restore_best=False)
        self.seconds += time.perf_counter() - began
        started = time.perf_counter() - self.seconds
        record = finish(self.phases, self.saving, self.saving.proofs, started, self.following.say)
        self.stack.close()
        return record

    def release(self) -> None:
        """Let its folder go; it goes on by itself."""
        self.phase.close()
        self.stack.close()

    def close(self, error: BaseException) -> None:
        """Let its folder go, and its followers know why."""
        for stack in (self.phase, self.stack):
            with contextlib.suppress(type(error)):
                stack.__exit__(type(error), error, error.__traceback__)


def train_fused(jobs: Mapping[int, Job], shared: Shared, say: Say, ended: Ended) -> None:
    """Train points as one; those that go on with less at once are left to train by themselves.

    Args:
        jobs: Of the points, by number.
        shared: What they share.
        say: Takes lines for the user.
        ended: Called for each with its number, its record or its error, and seconds.

    Raises:
        StoppedError: A signal asked for it; every point has saved what it did.
        NoRoomError: Memory ran out; every point has saved what it did.
    """
    numbers, fit = list(jobs), _fit(next(iter(jobs.values())), shared)
    if fit < len(numbers):
        say(f"memory      has room for {fit} of {len(numbers)} points at once")
    size = math.ceil(len(numbers) / math.ceil(len(numbers) / fit))  # parts of one size
    for start in range(0, len(numbers), size):
        if size > 1:
            some = {number: jobs[number] for number in numbers[start : start + size]}
            _train_some(some, shared, say, ended)


def _fit(job: Job, shared: Shared) -> int:
    """Return how many points like this one half of the free memory holds; never less than 1.

    A machine without memory kills the process and says nothing, so this is asked before.
    """
    classes = shared.known_classes(job.recipe) or PLACEHOLDER_CLASSES
    costs = costs_of(job.recipe, shared.proved(job.recipe, classes))
    each = COPIES * costs.gradients + costs.state
    return max(1, free_memory() // 2 // max(each, 1))


def _train_some(jobs: Mapping[int, Job], shared: Shared, say: Say, ended: Ended) -> None:
    """Train points as one that memory has room for."""
    points: dict[str, _Point] = {}
    hashed: dict[tuple[int, ...], dict[str, str]] = {}
    try:
        for number, job in jobs.items():
            with _failing(number, ended, lambda: points.get(str(number))):  # noqa: B023, called now
                point = _Point(number, job, shared, say)
                points[point.name] = point
                point.open()
        for point in [one for one in points.values() if one.state.halvings and not one.failed]:
            point.release()
            del points[point.name]
        for some in _alike(points.values()):
            for name in _train(some, say, ended):
                del points[name]
        for point in [one for one in points.values() if not one.failed]:
            with _failing(point.number, ended, lambda: point):  # noqa: B023
                ended(point.number, point.finish(hashed), point.seconds)
    except BaseException as error:
        for point in points.values():
            point.close(error)
        raise


@contextlib.contextmanager
def _failing(number: int, ended: Ended, point: Callable[[], _Point | None]) -> Iterator[None]:
    """Let a point that fails be a row, and the others go on."""
    try:
        yield
    except Exception as error:
        if os.environ.get("TLCOMPILE_TRACEBACK"):
            raise
        found = point()
        if found is not None:
            found.close(error)
            found.failed = True
        ended(number, error, found.seconds if found else 0.0)


def _alike(points: Iterable[_Point]) -> list[list[_Point]]:
    """Return the points that still train, those together that stand at the same step."""
    groups: dict[tuple[int, int], list[_Point]] = {}
    for point in points:
        if point.trainer is not None and not point.failed:
            place = len(point.state.history), point.state.step
            groups.setdefault(place, []).append(point)
    return list(groups.values())


def _train(points: Sequence[_Point], say: Say, ended: Ended) -> list[str]:
    """Train points to their ends; return the names of those that failed."""
    first = points[0].trainer
    assert first is not None
    by_name = {point.name: point for point in points}
    with stopping() as stop:
        fused = FusedTrainer(
            points[0].model, first.train, first.val, [point.member() for point in points],
            order=first.order, name_of=first.step.name_of,
            between=partial(stop.check, "the last checkpoint"),
        )  # fmt: skip
        if any(point.loaded for point in points):  # one that is over need not have any
            fused.load({k: t for point in points for k, t in point.weights_there().items()})
        for point in points:
            point.fused = fused
        return _follow(fused, by_name, stop, say, ended)


def _follow(
    fused: FusedTrainer, points: Mapping[str, _Point], stop: Stop, say: Say, ended: Ended
) -> list[str]:
    """Note what happens, save where it is due or a signal asks for it."""
    failed: list[str] = []
    for event in _saved_where_no_room(fused, points, failed):
        match event:
            case Halved():
                say(f"memory      ran out: at most {event.members} points are computed at once")
            case Failed():
                point = points[event.name]
                failed.append(event.name)
                point.close(event.error)
                ended(point.number, event.error, point.seconds)
            case FusedEpoch():
                for name, done in event.done.items():
                    points[name].epoch(done)
            case Stepped():
                for point in points.values():
                    point.look()
        if isinstance(event, Failed | Halved):
            continue  # the others have taken their steps, and say so next
        left = [point for name, point in points.items() if name not in failed]
        saving = left[0].saving if left else None
        due = saving and (saving.is_due() if isinstance(event, Stepped) else saving.is_worth())
        if stop.asked or due:
            for point in left:
                point.save()
        stop.check("a checkpoint of each point")
    return failed


def _saved_where_no_room(
    fused: FusedTrainer, points: Mapping[str, _Point], failed: Sequence[str]
) -> Iterator[Stepped | Failed | Halved | FusedEpoch]:
    """Yield what happens; where memory ends it, let each point go on by itself from there."""
    try:
        yield from fused.run()
    except NoRoomError:
        for name, point in points.items():
            if name not in failed and point.state.steps:
                point.save()
        raise
