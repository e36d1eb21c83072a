"""MLflow: where MLFLOW_TRACKING_URI says, in the experiment that MLFLOW_EXPERIMENT_NAME names."""

from __future__ import annotations

import math
import os
import time
from typing import Any

from tlcompile.run.tracking.tracker import Followed, State, flat_keys, values_of
from tlcompile.training.state import EpochRow

ENDS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}  # its own words
LONGEST = 500  # characters of a parameter or a tag, as its databases have them


class MLflow:
    """Logs through a client of its own: no run is 'active', so the points of a sweep do not mix."""

    client: Any
    run_id: str

    def begin(self, run: Followed) -> str | None:
        """Open the run, or go on with it."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        if run.known_as is not None:
            self.run_id = run.known_as
            self.client.update_run(self.run_id, status="RUNNING")
            return self.run_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "tlcompile")
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        made = self.client.create_run(experiment, run_name=run.folder.name)
        self.run_id = str(made.info.run_id)
        keys = flat_keys(run.recipe)
        params = [Param(key, value[:LONGEST]) for key, value in keys.items()]
        for start in range(0, len(params), 100):  # so many a call
            self.client.log_batch(self.run_id, params=params[start : start + 100])
        return self.run_id

    def epoch(self, row: EpochRow) -> None:
        """Log an epoch's numbers."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = {name: value for name, value in values_of(row).items() if math.isfinite(value)}
        metrics = [Metric(name, value, now, row.epoch) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def event(self, text: str, epoch: int) -> None:
        """Keep the last event as a tag: MLflow has no text by step."""
        self.client.set_tag(self.run_id, "last event", f"epoch {epoch}: {text}"[:LONGEST])

    def end(self, state: State) -> None:
        """Close the run."""
        self.client.set_terminated(self.run_id, ENDS[state])
