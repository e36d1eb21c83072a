"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from typing import Any

from tlcompile.recipe.scalars import to_yaml
from tlcompile.run.tracking.tracker import Followed, State, values_of
from tlcompile.training.state import EpochRow

FOLDER = "tensorboard"


class TensorBoard:
    """Writes scalars by epoch, the recipe and events as text; `tensorboard --logdir runs` shows them."""

    writer: Any

    def begin(self, run: Followed) -> str | None:
        """Open; after a resume TensorBoard hides what an aborted epoch may have left."""
        from torch.utils.tensorboard import SummaryWriter

        purge = run.epochs + 1 if run.epochs else None
        writer: Any = SummaryWriter
        self.writer = writer(log_dir=str(run.folder / FOLDER), purge_step=purge)
        if not run.epochs:
            self.writer.add_text("recipe", f"```\n{to_yaml(dict(run.recipe))}```")
        return None

    def epoch(self, row: EpochRow) -> None:
        """Write an epoch's numbers, for a board that is open now."""
        for name, value in values_of(row).items():
            self.writer.add_scalar(name, value, row.epoch)
        self.writer.flush()

    def event(self, text: str, epoch: int) -> None:
        """Write an event."""
        self.writer.add_text("events", text, epoch)

    def end(self, state: State) -> None:
        """Close the file."""
        del state  # event files have no word for it
        self.writer.close()
