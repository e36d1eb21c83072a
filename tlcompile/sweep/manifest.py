"""What has become of each point: manifest.csv for people, and a log that loses nothing to a kill.

A point is finished when its own folder says so. Neither file is asked by anybody: both tell.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tlcompile.durable.files import append_line, write_file
from tlcompile.sweep.points import Point, write_manifest

LOG = "points.jsonl"
COMMAND = "command.txt"
SECONDS = 1.0  # between two times that the whole table is written; the log has each change at once

PLANNED, RUNNING, FINISHED, FAILED, STOPPED = "planned", "running", "finished", "failed", "stopped"


class Manifest:
    """The table of a sweep while it runs.

    Attributes:
        folder: The sweep's own.
        rows: One a point, in order.
    """

    def __init__(
        self, folder: Path, rows: Sequence[Point], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.rows, self._clock = folder, list(rows), clock
        self.write()

    def write(self) -> Path:
        """Write manifest.csv, whole."""
        self._written = self._clock()
        return write_manifest(self.folder, self.rows)

    def begin(self, number: int) -> None:
        """Note that a point runs now."""
        self._set(number, replace(self.rows[number], state=RUNNING))

    def end(self, number: int, row: Point) -> None:
        """Note how a point ended."""
        self._set(number, row)

    def stop(self, number: int) -> None:
        """Note that a point was told to stop; what it has saved stays."""
        self._set(number, replace(self.rows[number], state=STOPPED))
        self.write()

    def failed(self) -> int:
        """Count the points that failed."""
        return sum(row.state == FAILED for row in self.rows)

    def _set(self, number: int, row: Point) -> None:
        self.rows[number] = row
        told = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "point": " ".join(row.overrides),
            "state": row.state,
            "metric": row.metric,
            "best": row.best,
            "seconds": round(row.seconds, 3),
            "error": row.error,
        }
        append_line(self.folder / LOG, json.dumps({k: v for k, v in told.items() if v != ""}))
        if self._clock() - self._written >= SECONDS:
            self.write()


def write_command(folder: Path, command: str) -> None:
    """Keep the command that brings the sweep to its end, quoted for a shell."""
    write_file(folder / COMMAND, f"{command}\n".encode())


def read_command(folder: Path) -> str:
    """Return that command; empty where none was kept."""
    try:
        return (folder / COMMAND).read_text(encoding="utf-8").removesuffix("\n")
    except OSError:
        return ""
