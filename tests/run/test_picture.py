"""plan --html: the graph as a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlcompile.run.cli import main

SMALL = """\
name: small
base: {model: digits_net}
freeze: {upto: block1}
data: {dataset: digits, classes: ["5", "6"], per_class: 8}
fine_tune: {epochs: 2, batch_size: 8}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)


def plan(*words: str) -> int:
    return main(["plan", "small.yaml", "--html", "graph.html", *words])


def test_plan_draws_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "picture     graph.html"
    page = Path("graph.html").read_text()
    assert "<h1>small</h1>" in page
    assert 'data-name="block1.conv"' in page
    assert "bytes of features an image" in page
    assert "parameters train, 9,568 are frozen" in page


def test_a_page_of_ours_is_drawn_anew(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan() == 0
    first = Path("graph.html").read_bytes()
    assert plan() == 0
    assert Path("graph.html").read_bytes() == first
    assert plan("freeze=block2") == 0
    assert Path("graph.html").read_bytes() != first
    capsys.readouterr()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_else_is_overwritten(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    here = Path("graph.html")
    if kind == "file":
        here.write_text("<html>mine</html>")
    else:
        here.mkdir()
    assert plan() == 2
    told = capsys.readouterr().err
    assert "'graph.html' exists already" in told
    assert "name another place with --html" in told
    assert here.is_dir() or here.read_text() == "<html>mine</html>"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("--json") == 0
    json.loads(capsys.readouterr().out)
    assert Path("graph.html").exists()


def test_every_phase_has_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    phases = "fine_tune.phases=[{name: a, epochs: 1, freeze: head}, {name: b, epochs: 1, freeze: block1}]"
    Path("small.yaml").write_text(
        SMALL.replace("epochs: 2, ", "").replace("freeze: {upto: block1}\n", "")
    )
    assert plan(phases) == 0, capsys.readouterr().err
    page = Path("graph.html").read_text()
    assert page.count("<figure") == 2
    assert "phase 1 of 2: digits_net" in page
    assert "phase 2 of 2: digits_net" in page
    capsys.readouterr()
