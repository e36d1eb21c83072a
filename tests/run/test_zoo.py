"""What `zoo` shows of one model: its vertices, or its modules where it is large."""

from __future__ import annotations

import json

import pytest

from tlcompile.run.cli import main


def zoo(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["zoo", *words]) == 0
    return capsys.readouterr().out


def test_a_large_model_is_shown_module_by_module(capsys: pytest.CaptureFixture[str]) -> None:
    told = zoo(capsys, "resnet18")
    rows = {line.split()[0]: line.split() for line in told.splitlines()}
    assert rows["layer1.1.relu_1"][1:3] == ["14", "vertices"]
    assert rows["layer1.1.relu_1"][-1] == "stage1"
    assert "layer1.0.conv1" not in rows
    assert "70 vertices, 11,689,512 parameters, 3.63 GFLOPs an image" in told
    assert told.splitlines()[-1] == "--full shows every vertex."


def test_full_shows_every_vertex_and_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    told = zoo(capsys, "resnet18", "--full")
    add = next(line for line in told.splitlines() if line.startswith("layer1.0.add "))
    assert "layer1.0.bn2, maxpool" in add
    assert len(told.splitlines()) == 70 + 3 + 2  # title, columns, rule; totals, regions
    assert "--full" not in told


def test_data_have_every_vertex_in_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["vertex"]: row for row in json.loads(zoo(capsys, "resnet18", "--json"))}
    assert len(rows) == 70
    assert rows["conv1"]["flops"] == 2 * 64 * 112 * 112 * 3 * 7 * 7
    assert rows["conv1"]["bytes"] == 64 * 112 * 112 * 4
    assert rows["layer1.0.add"]["reads"] == ["layer1.0.bn2", "maxpool"]
    assert sum(row["parameters"] for row in rows.values()) == 11_689_512


def test_a_small_model_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    told = zoo(capsys, "digits_net")
    assert "\nblock1.conv " in told
    assert "--full" not in told


def test_a_stage_ends_its_row_inside_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    told = zoo(capsys, "squeezenet1_0")
    ends = {line.split()[0]: line.split()[-1] for line in told.splitlines() if "stage" in line}
    assert ends["features.5.cat"] == "stage1"
    assert ends["features.10.cat"] == "stage2"
    assert ends["features.12.cat"] == "stage3"
