"""The benchmarks start, and their pictures are the same every time. They are run by hand alone."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(
    path.name for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text()
)


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the scripts import each other, as they do when one is run, and forget them again."""
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run(script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(FOLDER / script), run_name="__main__")


def test_there_are_benchmarks() -> None:
    assert len(SCRIPTS) > 8, SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_a_benchmark_is_for(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(script, "--help", monkeypatch=monkeypatch)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "usage:" in told
    assert (FOLDER / script).read_text().splitlines()[0].strip('"')[:40] in told


def test_pictures_are_the_same_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[dict[str, bytes]] = []
    for name in ("one", "other"):
        run("pictures.py", str(tmp_path / name), "--images", "5", monkeypatch=monkeypatch)
        files = sorted((tmp_path / name).rglob("*.jpg"))
        found.append({str(p.relative_to(tmp_path / name)): p.read_bytes() for p in files})
    first = found[0]
    assert found[1] == first
    assert len(set(first.values())) == 5
    assert {path.split("/")[0] for path in first} == {"train", "val"}
    assert all(50_000 < len(data) < 130_000 for data in first.values())
    assert "5 pictures" in capsys.readouterr().out


def test_the_tutorial_freezes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pictures
    import tutorial

    pictures.make_pictures(tmp_path, 4)
    weights = tmp_path / "weights.safetensors"
    tutorial.random_weights("resnet18", weights)
    settings: Any = tutorial.Settings(tmp_path, weights, upto="layer3")
    model = tutorial.build(settings)
    moving = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert moving == {"layer4", "fc"}
    assert model.get_submodule("fc").out_features == 2
    assert torch.equal(
        model.state_dict()["conv1.weight"],
        tutorial.load_file(weights)["conv1.weight"],
    )
