"""B1: kill -9 at any instant of a training; what it ends with is what it would have ended with.

Final weights, the last checkpoints with their optimizer, metrics and the choice of the best epoch are
equal to the bit. Black box: children are killed at random instants. White box: a run is stopped at
each single operation on the disk. Seeded mistakes have to be seen.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from durable_disks import CountingCalls, Killed, do_not_wait, replaced_calls

from reliability.conftest import KILLED, Reports
from reliability.training_runs import (
    SHAPES,
    differences,
    ending,
    prepare,
    save_after_each_step,
    train,
)
from tlcompile.run import phases
from tlcompile.run.saving import Saving
from tlcompile.training.loop import PhaseTrainer
from tlcompile.training.state import TrainingState
from tlcompile.training.step import Step

Forked = Callable[[tuple[str, ...]], Reports]


@pytest.mark.parametrize(
    "jobs",
    [
        KILLED,
        *(
            pytest.param((f"{shape}:200:9",), marks=pytest.mark.slow)
            for shape in (*SHAPES, "sweep")
        ),
    ],
    ids=lambda jobs: "+".join(job.rpartition(":")[0] for job in jobs),
)
def test_killed_at_random_instants(forked: Forked, jobs: tuple[str, ...]) -> None:
    places: set[str] = set()
    for job, report in forked(jobs).items():
        assert report["wrong"] == [], job
        assert report["stops"] == int(job.split(":")[1])
        assert report["runs"] > 0
        places |= set(report["places"])
    assert places - {"start"}, "none was killed while it trained"


# In this process


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    do_not_wait(monkeypatch)
    save_after_each_step(monkeypatch.setattr)
    prepare(tmp_path)
    return tmp_path


def each_stop(root: Path, shape: str, every: int) -> Iterator[Path]:
    """Stop at an operation on the disk, go on to the end; then at one that comes later."""
    number = 1
    while True:
        calls = CountingCalls(number, Killed())
        name = f"stopped{number}"
        with replaced_calls(calls):
            try:
                train(root, shape, name)
            except Killed:
                pass
            finally:
                calls.close_all()
        if calls.count < number:
            return
        train(root, shape, name)
        yield root / name
        number += every


@pytest.mark.parametrize(
    ("shape", "every"),
    [("phases", 211), *(pytest.param(shape, 1, marks=pytest.mark.slow) for shape in SHAPES)],
)
def test_stopped_at_operations_on_the_disk(root: Path, shape: str, every: int) -> None:
    train(root, shape, "whole")
    wanted = ending(root / "whole")
    stops = 0
    for folder in each_stop(root, shape, every):
        assert not differences(ending(folder), wanted), folder.name
        shutil.rmtree(folder)
        stops += 1
    assert stops * every > 200, "hardly anything was written"


# Mistakes

Mistake = Callable[[pytest.MonkeyPatch], None]


def order_from_the_global_generator(patch: pytest.MonkeyPatch) -> None:
    order = lambda count, *_rest: torch.randperm(count).tolist()  # noqa: E731
    patch.setattr(phases, "epoch_order", order)


def dropout_from_the_global_generator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Step, "_seed", lambda *_args: None)


def forgotten(counter: str) -> Mistake:
    def mistake(patch: pytest.MonkeyPatch) -> None:
        as_data = TrainingState.as_data
        patch.setattr(TrainingState, "as_data", lambda self: {**as_data(self), counter: 0})

    return mistake


def not_restored(part: str) -> Mistake:
    """Forget the optimizer's state, the average or the sums of the running epoch."""

    def mistake(patch: pytest.MonkeyPatch) -> None:
        parts = PhaseTrainer._parts

        def load(self: PhaseTrainer, tensors: Mapping[str, torch.Tensor]) -> None:
            for name, holder in parts(self).items():
                if holder is not None and name != part:
                    mine = {
                        n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(name)
                    }
                    holder.load(mine)

        patch.setattr(PhaseTrainer, "load", load)

    return mistake


def optimizer_before_the_phase(patch: pytest.MonkeyPatch) -> None:
    """Restore the optimizer, and then begin its phase."""
    began = Saving.began

    def began_then_opened(self: Saving, trainer: PhaseTrainer, *rest: Any) -> None:
        began(self, trainer, *rest)
        fresh = {n: torch.zeros_like(t) for n, t in trainer.optimizers.tensors().items()}
        trainer.optimizers.load(fresh)

    patch.setattr(Saving, "began", began_then_opened)


def best_weights_from_here_on(patch: pytest.MonkeyPatch) -> None:
    resume = Saving.resume

    def resumed(self: Saving, **how: Any) -> bool:
        found = resume(self, **how)
        names = phases.moving(self.phases.models)
        state = self.phases.models[0].state_dict()
        self.best = {name: state[name].clone() for name in names} if self.best else None
        return found

    patch.setattr(Saving, "resume", resumed)


def statistics_not_saved(patch: pytest.MonkeyPatch) -> None:
    from tlcompile.run import saving

    keep = phases.moving

    def parameters_alone(models: Any) -> frozenset[str]:
        return frozenset(name for name in keep(models) if "running" not in name)

    patch.setattr(saving, "moving", parameters_alone)


# A shape, the save behind which the run dies, and what is done wrong.
MISTAKES: dict[str, tuple[str, int, Mistake]] = {
    "order from the global generator": ("cached", 6, order_from_the_global_generator),
    "dropout from the global generator": ("cached", 6, dropout_from_the_global_generator),
    "step counter dropped": ("cached", 6, forgotten("steps")),
    "place in the epoch dropped": ("cached", 6, forgotten("step")),
    "epoch counter dropped": ("cached", 6, forgotten("epoch")),
    "patience dropped": ("patience", 9, forgotten("waited")),
    "optimizer not restored": ("phases", 22, not_restored("optimizer")),
    "sums of the epoch not restored": ("ema", 2, not_restored("running")),
    "average not restored": ("ema", 3, not_restored("average")),
    "optimizer restored before its phase": ("phases", 22, optimizer_before_the_phase),
    "best weights taken anew": ("phases", 22, best_weights_from_here_on),
    "statistics of norms not saved": ("ema", 3, statistics_not_saved),
}
QUICK = ("order from the global generator", "optimizer restored before its phase")


def died_and_resumed(root: Path, shape: str, behind: int) -> list[str]:
    """Die behind a save and go on; return in what the run differs from one that did not die."""
    train(root, shape, "whole")
    saves = 0
    with pytest.MonkeyPatch.context() as patch:
        save = Saving.save

        @functools.wraps(save)
        def counted(self: Saving) -> None:
            nonlocal saves
            save(self)
            saves += 1
            if saves == behind:
                raise Killed

        patch.setattr(Saving, "save", counted)
        with pytest.raises(Killed):
            train(root, shape, "died")
    train(root, shape, "died")
    return differences(ending(root / "died"), ending(root / "whole"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in MISTAKES
    ],
)
def test_a_mistake_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shape, behind, mistake = MISTAKES[name]
    mistake(monkeypatch)
    assert died_and_resumed(root, shape, behind)


@pytest.mark.slow
def test_without_a_mistake_nothing_differs(root: Path) -> None:
    for number, (shape, behind) in enumerate({(s, b) for s, b, _ in MISTAKES.values()}):
        prepare(root / str(number))
        assert not died_and_resumed(root / str(number), shape, behind)
