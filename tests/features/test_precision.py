"""`auto` is measured once a machine, and remembered where that is possible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tlcompile.features import precision
from tlcompile.features.precision import choose_precision, fastest_that_pays, measure

CPU = torch.device("cpu")
FAST_PAYS = {"exact": 1.0, "fp32-fused": 0.9, "fast": 0.3}
NOTHING_PAYS = {"exact": 1.0, "fp32-fused": 0.9, "fast": 0.8}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Give the answers of measurements to come, one after the other; those that are left."""
    answers = [FAST_PAYS, NOTHING_PAYS]
    monkeypatch.setattr(precision, "measure", lambda _device: answers.pop(0))
    return answers


@pytest.mark.parametrize("word", ["exact", "fp32-fused", "fast"])
def test_a_precision_that_is_named_is_taken(
    tmp_path: Path, measured: list[dict[str, float]], word: str
) -> None:
    assert choose_precision(word, CPU, tmp_path) == word
    assert len(measured) == 2
    assert not list(tmp_path.iterdir())


def test_auto_is_measured_once(tmp_path: Path, measured: list[dict[str, float]]) -> None:
    assert [choose_precision("auto", CPU, tmp_path / "cache") for _ in range(3)] == ["fast"] * 3
    assert len(measured) == 1
    (found,) = json.loads((tmp_path / "cache" / "precision.json").read_text()).values()
    assert found == "fast"


@pytest.mark.usefixtures("measured")
def test_auto_is_measured_again_without_a_memory() -> None:
    assert [choose_precision("auto", CPU, None) for _ in range(2)] == ["fast", "exact"]


@pytest.mark.usefixtures("measured")
def test_auto_is_measured_again_where_nothing_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    assert [choose_precision("auto", CPU, file) for _ in range(2)] == ["fast", "exact"]


@pytest.mark.usefixtures("measured")
def test_auto_is_measured_again_with_other_threads(tmp_path: Path) -> None:
    assert choose_precision("auto", CPU, tmp_path) == "fast"
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert choose_precision("auto", CPU, tmp_path) == "exact"
    finally:
        torch.set_num_threads(threads)
    assert choose_precision("auto", CPU, tmp_path) == "fast"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"a": ', None])
def test_a_damaged_memory_is_mended(
    tmp_path: Path, measured: list[dict[str, float]], content: bytes | None
) -> None:
    file = tmp_path / "precision.json"
    machine = precision._machine(CPU)
    file.write_bytes(json.dumps({machine: "magic"}).encode() if content is None else content)
    assert [choose_precision("auto", CPU, tmp_path) for _ in range(2)] == ["fast"] * 2
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("exact", "fused", "fast", "chosen"),
    [
        (1.0, 1.0, 1.0, "exact"),
        (1.0, 0.9, 0.8, "exact"),  # each gains less than 1.2 over the one before
        (1.0, 0.8, 0.7, "fp32-fused"),
        (1.0, 0.8, 0.5, "fast"),
        (1.0, 0.95, 0.4, "fast"),
        (1.0, 3.0, 1.5, "exact"),  # twice as fast as fused, and slower than exact
        (1.0, 0.5, 9.0, "fp32-fused"),  # bf16 in software
    ],
)
def test_more_bits_go_only_for_speed(exact: float, fused: float, fast: float, chosen: str) -> None:
    assert fastest_that_pays({"exact": exact, "fp32-fused": fused, "fast": fast}) == chosen


def test_a_measurement_leaves_the_draws_of_a_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in {"SIDE": 4, "CHANNELS": 4, "ROUNDS": 2}.items():
        monkeypatch.setattr(precision, name, small)
    before = torch.get_rng_state()
    assert all(seconds > 0 for seconds in measure(CPU).values())
    assert torch.equal(torch.get_rng_state(), before)
