"""Show on a terminal how training goes: epoch, step, loss, metric, rate, images a second, time left."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator

from tlcompile.training.loop import EpochDone, PhaseTrainer, Stepped

Show = Callable[[Stepped | EpochDone], None]


@contextlib.contextmanager
def live(trainer: PhaseTrainer) -> Iterator[Show]:
    """Draw a bar of the phase's steps on a terminal, and nothing elsewhere; yields what moves it.

    Nothing here waits for the device: losses and metrics are those of the last finished epoch.
    """
    if not sys.stderr.isatty():
        yield lambda _event: None
        return
    # Here, because most commands draw no bar: 25 ms of every `check`.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    words = TextColumn("{task.description}", markup=False)
    with Progress(
        words, BarColumn(bar_width=20), TimeRemainingColumn(), console=Console(stderr=True),
        transient=True,
    ) as bar:  # fmt: skip
        told = Told(trainer)
        task = bar.add_task(told.worded(), total=told.steps * trainer.settings.epochs)

        def show(event: Stepped | EpochDone) -> None:
            told.take(event)
            bar.update(task, completed=told.done(), description=told.worded())

        yield show


class Told:
    """What is shown, in words.

    Args:
        trainer: Whose events are taken.

    Attributes:
        steps: Of an epoch.
    """

    def __init__(self, trainer: PhaseTrainer) -> None:
        self.trainer, self.steps = trainer, trainer.steps_an_epoch()
        self._images, self._since = 0, time.perf_counter()
        self._last = ""

    def take(self, event: Stepped | EpochDone) -> None:
        """Take what has happened; images are counted anew in each epoch."""
        if isinstance(event, Stepped):
            self._images += event.samples
            return
        monitor = self.trainer.settings.monitor
        value = event.row.value(monitor)
        loss = f"loss {event.row.train.loss:.4g}"
        shown = "" if monitor == "train/loss" or math.isnan(value) else f"  {monitor} {value:.4g}"
        self._last = f"  {loss}{shown}"
        self._images, self._since = 0, time.perf_counter()

    def done(self) -> int:
        """Return the steps of the phase that are done."""
        return self.trainer.state.epoch * self.steps + self.trainer.state.step

    def worded(self) -> str:
        """Return the line in front of the bar."""
        state, settings = self.trainer.state, self.trainer.settings
        name = "" if settings.name == "main" else f"{settings.name}: "
        epoch = f"epoch {min(state.epoch + 1, settings.epochs)}/{settings.epochs}"
        step = f"step {state.step}/{self.steps}"
        rate = next(iter(self.trainer.optimizers.rates().values()), math.nan)
        seconds = time.perf_counter() - self._since
        speed = f"  {self._images / seconds:.0f} images/s" if self._images and seconds > 0 else ""
        return f"{name}{epoch}  {step}{self._last}  lr {rate:.2g}{speed}"
