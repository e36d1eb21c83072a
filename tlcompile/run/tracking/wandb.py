"""Weights & Biases: in the project that WANDB_PROJECT names; WANDB_MODE=offline stays here."""

from __future__ import annotations

import os
from typing import Any

from tlcompile.run.tracking.tracker import Followed, State, values_of
from tlcompile.training.state import EpochRow


class WandB:
    """Logs to a run of its own: several in one process do not mix."""

    run: Any

    def begin(self, run: Followed) -> str | None:
        """Open the run, or go on with it."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tlcompile"),
            name=run.folder.name,
            id=run.known_as,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.recipe),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        return str(self.run.id)

    def epoch(self, row: EpochRow) -> None:
        """Log an epoch's numbers."""
        self.run.log(values_of(row), step=row.epoch)

    def event(self, text: str, epoch: int) -> None:
        """Keep the last event in the summary."""
        self.run.summary["last event"] = f"epoch {epoch}: {text}"

    def end(self, state: State) -> None:
        """Close the run; it counts as crashed unless it finished."""
        self.run.finish(exit_code=0 if state == "finished" else 1)
