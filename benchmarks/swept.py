"""The tutorial's work at many points: a sweep of tlcompile in an empty cache, and what its parts cost."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cached import cold_cache, recipe_of
from side import Pause
from tutorial import Settings

from tlcompile.data import folder as data_folder
from tlcompile.recipe.load import complete
from tlcompile.recipe.schema import Recipe
from tlcompile.run.sweep import run_points
from tlcompile.training.fused import FusedTrainer
from tlcompile.training.loop import PhaseTrainer


@dataclass(frozen=True)
class Swept:
    """One point: what it has of its own.

    Attributes:
        upto: Frozen up to here: a stage, or avgpool.
        lr: Learning rate.
        batch: Images a step.
        decay: Weight decay.
    """

    upto: str
    lr: float
    batch: int
    decay: float = 0.0

    def name(self) -> tuple[str, ...]:
        """Return it as the overrides that would make it."""
        return (
            f"freeze.upto={self.upto}", f"fine_tune.optimizer.lr={self.lr:g}",
            f"fine_tune.optimizer.weight_decay={self.decay:g}",
            f"fine_tune.batch_size={self.batch}",
        )  # fmt: skip

    def recipe(self, settings: Settings, precision: str, fuse: str = "auto") -> Recipe:
        """Return its recipe."""
        whole = recipe_of(replace(settings, batch=self.batch), precision).model_dump(
            exclude_unset=True
        )
        whole["freeze"] = {"upto": [self.upto]}
        whole["fine_tune"]["optimizer"] |= {"lr": self.lr, "weight_decay": self.decay}
        whole["sweep"] = {"fuse": fuse}
        return complete(Recipe.model_validate(whole))


def points_of(
    stages: Sequence[str], rates: Sequence[float], batches: Sequence[int], decays: Sequence[float]
) -> list[Swept]:
    """Return every combination."""
    return [
        Swept(upto, lr, batch, decay)
        for upto in stages
        for batch in batches
        for lr in rates
        for decay in decays
    ]


def train_points(
    points: Sequence[Swept], settings: Settings, precision: str, folder: Path, fuse: str = "auto"
) -> None:
    """Train points as one sweep; what it says goes nowhere.

    Raises:
        SystemExit: A point failed.
    """
    recipes = [point.recipe(settings, precision, fuse) for point in points]
    run_quietly([point.name() for point in points], recipes, folder)


def run_quietly(points: Sequence[tuple[str, ...]], recipes: Sequence[Recipe], folder: Path) -> None:
    """Train points as one sweep; what it says goes nowhere.

    Raises:
        SystemExit: A point failed.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:
        rows = run_points(points, recipes, folder=folder)
    if any(row.state != "finished" for row in rows):
        raise SystemExit(said.getvalue())


def sweep(pause: Pause, points: Sequence[Swept], settings: Settings, precision: str) -> None:
    """Train points from an empty cache to the last bundle: one step."""
    with cold_cache() as folder:
        train_points(points, settings, precision, folder / "sweep")
    pause()


@contextlib.contextmanager
def training_clock() -> Iterator[Callable[[], float]]:
    """Give what tells the CPU seconds spent in training loops: steps, and judging an epoch."""
    spent = 0.0

    def timed(run: Callable[..., Any]) -> Callable[..., Any]:
        def events(self: Any) -> Iterator[Any]:
            nonlocal spent
            found = run(self)
            while True:
                start = time.process_time()
                event = next(found, None)
                spent += time.process_time() - start
                if event is None:
                    return
                yield event

        return events

    before = PhaseTrainer.run, FusedTrainer.run
    PhaseTrainer.run, FusedTrainer.run = map(timed, before)  # type: ignore[assignment, method-assign]
    try:
        yield lambda: spent
    finally:
        PhaseTrainer.run, FusedTrainer.run = before  # type: ignore[method-assign]


@contextlib.contextmanager
def decode_counter() -> Iterator[list[str]]:
    """Give the list of files that are decoded."""
    decode, found = data_folder.decode_image, list[str]()

    def counted(data: bytes, path: str, *given: Any) -> Any:
        found.append(path)
        return decode(data, path, *given)

    data_folder.decode_image = counted
    try:
        yield found
    finally:
        data_folder.decode_image = decode
