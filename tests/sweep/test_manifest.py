"""The table of a running sweep: the log has each change at once, the table at most once a second."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tlcompile.sweep.manifest import FAILED, FINISHED, Manifest
from tlcompile.sweep.points import Point


def rows(*names: str) -> list[Point]:
    return [Point((name,), "planned", "head") for name in names]


def states(folder: Path) -> list[str]:
    with (folder / "manifest.csv").open(newline="") as file:
        return [row["state"] for row in csv.DictReader(file)]


def test_every_point_is_a_row_before_the_first_runs(tmp_path: Path) -> None:
    Manifest(tmp_path, rows("a=1", "a=2"))
    assert states(tmp_path) == ["planned", "planned"]


def test_the_table_is_written_once_a_second_and_the_log_at_once(tmp_path: Path) -> None:
    now = 0.0
    manifest = Manifest(tmp_path, rows("a=1", "a=2"), clock=lambda: now)
    manifest.begin(0)
    manifest.end(0, Point(("a=1",), FINISHED, "head", metric="val/loss", best=0.5, seconds=2.0))
    assert states(tmp_path) == ["planned", "planned"]
    lines = [json.loads(line) for line in (tmp_path / "points.jsonl").read_text().splitlines()]
    assert [(line["point"], line["state"]) for line in lines] == [
        ("a=1", "running"),
        ("a=1", "finished"),
    ]
    assert (lines[1]["best"], lines[1]["seconds"]) == (0.5, 2.0)
    now = 1.5
    manifest.begin(1)
    assert states(tmp_path) == ["finished", "running"]


def test_a_stop_is_written_at_once(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, rows("a=1"), clock=lambda: 0.0)
    manifest.begin(0)
    manifest.stop(0)
    assert states(tmp_path) == ["stopped"]


def test_a_failure_keeps_its_reason(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, rows("a=1", "a=2"), clock=lambda: 0.0)
    manifest.end(1, Point(("a=2",), FAILED, "head", error="burnt"))
    manifest.write()
    assert states(tmp_path) == ["planned", "failed"]
    assert manifest.failed() == 1
    assert json.loads((tmp_path / "points.jsonl").read_text())["error"] == "burnt"
