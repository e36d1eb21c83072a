"""manifest.csv: one row a point, safe in a spreadsheet, whole after every point."""

from __future__ import annotations

import csv
from pathlib import Path

from tlcompile.sweep.points import COLUMNS, Point, write_manifest

DONE = Point(("freeze.upto=stem", "fine_tune.epochs=1"), "finished", "stem", 5, 1e-3, 2,
             "val/accuracy", 0.5, 8, (0.2152, 0.7848), 1.23456, "sweeps/a/b")  # fmt: skip


def test_rows_and_columns(tmp_path: Path) -> None:
    failed = Point(("x=1",), "failed", "head", error='=1+1, "quoted"\nno')
    path = write_manifest(tmp_path / "sweeps" / "a", [DONE, failed])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["point"] == "freeze.upto=stem fine_tune.epochs=1"
    assert (rows[0]["low95"], rows[0]["high95"], rows[0]["seconds"]) == (
        "0.2152",
        "0.7848",
        "1.235",
    )
    assert rows[1]["best"] == rows[1]["trainable"] == ""
    assert rows[1]["error"].startswith("'=1+1")


def test_it_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_manifest(tmp_path, [DONE, DONE])
    path = write_manifest(tmp_path, [DONE])
    assert len(path.read_text().splitlines()) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.csv"]
