"""`check` names every problem at once, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_pictures

from tlcompile.run.cli import main

WRONG_NAMES = """\
base: {model: digits_net}
freeze: {upto: blokc1, only: [stemm]}
remove:
  fcc: drop
resize:
  blokc2: {out: 7}
add:
  a: {layer: linear, out: 3, inputs: flaten}
  b: {layer: linear, out: classes, inputs: [a], feeds: [fcc]}
outputs: [b, c]
data: {dataset: digits}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(capsys: pytest.CaptureFixture[str], text: str) -> list[str]:
    Path("r.yaml").write_text(text)
    assert main(["check", "r.yaml"]) == 2
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("r.yaml:")]


def test_all_unknown_names_are_told_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = problems(capsys, WRONG_NAMES)
    assert [line.split("'")[3] for line in found] == [
        "blokc1", "stemm", "fcc", "blokc2", "flaten", "fcc", "c"
    ]  # fmt: skip
    assert [int(line.split(":")[1]) for line in found] == [2, 2, 4, 6, 8, 9, 10]
    assert all(line.endswith("[unknown-vertex]") for line in found)


def test_a_misspelt_added_layer_is_found_among_the_added(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "base: digits_net\nadd:\n  hidden: {layer: linear, out: 3, inputs: flatten}\n"
        "  last: {layer: linear, out: classes, inputs: hiden}\noutputs: last\n"
        "data: {dataset: digits}\n"
    )
    Path("r.yaml").write_text(text)
    assert main(["check", "r.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("r.yaml:4:47: ")
    assert "did you mean 'hidden'?" in said
    assert main(["check", "r.yaml", "add.last.inputs=hidden"]) == 0


def test_parts_of_added_layers_are_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "base: digits_net\nadd:\n"
        "  hidden: {layer: linear, out: 3, activation: relu, inputs: flatten}\n"
        "  last: {layer: linear, out: classes, inputs: hidden.activation}\noutputs: last\n"
        "data: {dataset: digits}\n"
    )
    Path("r.yaml").write_text(text)
    assert main(["check", "r.yaml"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_weights_of_a_class_that_the_data_have_not_are_found_before_training(
    place: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    text = "base: digits_net\ndata: {dataset: digits}\nfine_tune: {class_weights: {cat: 3.0}}\n"
    Path("r.yaml").write_text(text)
    assert main([verb, "r.yaml"]) == 2
    said = capsys.readouterr().err
    assert "class 'cat' of fine_tune.class_weights" in said
    assert "mv " not in said
    Path("r.yaml").write_text(text.replace("dataset: digits", "folder: absent"))
    assert main([verb, "r.yaml"]) == 0, "without images nobody knows"


def test_a_line_that_train_refuses_has_no_plan(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "base: digits_net\nfreeze: none\nfeatures: {cache: off}\ndata: {dataset: digits}\n"
    Path("r.yaml").write_text(text)
    assert main(["plan", "r.yaml"]) == 2
    assert "features.cache has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_what_train_needs_and_is_not_there_is_told(
    place: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    absent = "data.folder: there is no folder 'pictures', which train needs"
    unused = "data.split is not used: there are validation images of their own"
    weights = "base.weights: there is no file 'w.safetensors', which train needs"
    text = "base: {model: digits_net, weights: w.safetensors}\ndata: {folder: pictures, split: {val: 0.3}}\n"
    Path("r.yaml").write_text(text)
    assert main([verb, "r.yaml"]) == 0
    told = capsys.readouterr().out
    assert [absent in told, unused in told, weights in told] == [True, False, True]
    for split in ("train", "val"):
        make_pictures(Path("pictures") / split, count=2)
    Path("r.yaml").write_text(text.replace(", weights: w.safetensors", ""))
    assert main([verb, "r.yaml"]) == 0
    told = capsys.readouterr().out
    assert [absent in told, unused in told, weights in told] == [False, True, False]


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_a_class_that_the_folder_has_not_is_refused_where_it_is_there(
    place: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    Path("r.yaml").write_text(
        "base: digits_net\ndata: {folder: pictures, classes: [ants, wasps]}\n"
    )
    assert main([verb, "r.yaml"]) == 0
    make_pictures(Path("pictures"), count=2)
    capsys.readouterr()
    assert main([verb, "r.yaml"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("r.yaml:2:42: class 'wasps' of data.classes")
