"""Finished runs are found by folder or name, and read only where they are whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlcompile.durable.generations import commit_folder
from tlcompile.errors.ancestry import UnfinishedRunError
from tlcompile.errors.finding import AmbiguousRunError, UnknownRunError
from tlcompile.errors.run import DamagedFileError, NotABundleError
from tlcompile.recipe.finished import FILES, FROZEN, RECORDED, find_run, read_run

RECIPE = b"name: a\nbase: {model: digits_net}\n"


def save(folder: Path, **record: object) -> Path:
    """Write a bundle whose weights are empty; nobody here reads them."""
    recorded = {**dict.fromkeys(RECORDED, "x"), "classes": ["a", "b"], **record}
    files = {**dict.fromkeys(FILES, b""), "recipe.yaml": RECIPE}
    commit_folder(folder / "bundle", {**files, "record.json": json.dumps(recorded).encode()})
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/net-1", "runs/net-1-2", "runs/other-3", "sweeps/net-9/freeze.upto=stem"):
        save(Path(name))
    Path("runs/begun-4").mkdir()
    Path("runs/begun-4/metrics.csv").write_text("epoch\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("runs/net-1", "runs/net-1"),
        ("net-1", "runs/net-1"),
        ("net-1-", "runs/net-1-2"),
        ("other", "runs/other-3"),
        ("runs/oth", "runs/other-3"),
        ("freeze", "sweeps/net-9/freeze.upto=stem"),
        ("runs/net-1/bundle", "runs/net-1/bundle"),
    ],
)
def test_a_name_finds_one_run(place: Path, name: str, found: str) -> None:
    assert str(find_run(name)) == found


def test_several_runs_are_listed_and_none_is_named(place: Path) -> None:
    with pytest.raises(AmbiguousRunError) as several:
        find_run("net")
    assert several.value.runs == ("runs/net-1", "runs/net-1-2")
    with pytest.raises(UnknownRunError) as unknown:
        find_run("begun")
    assert "runs/other-3" in unknown.value.runs


def test_a_run_is_read_from_its_folder_or_its_bundle_alone(place: Path) -> None:
    run = read_run("runs/net-1")
    assert run.classes == ("a", "b")
    assert [classes for _, classes in run.steps] == [2]
    assert read_run("runs/net-1/bundle").recipe == run.recipe


def test_what_is_no_finished_run_is_refused(place: Path) -> None:
    with pytest.raises(UnfinishedRunError, match=r"tlcompile train runs/begun-4/recipe\.yaml"):
        read_run("runs/begun-4")
    with pytest.raises(NotABundleError):
        read_run("runs")
    (place / "runs" / "net-1" / "bundle" / "golden.safetensors").unlink()
    with pytest.raises(NotABundleError, match=r"golden\.safetensors"):
        read_run("runs/net-1")


def test_only_what_is_read_has_to_be_whole(place: Path) -> None:
    bundle = place / "runs" / "net-1" / "bundle"
    (bundle / "model.safetensors").write_bytes(b"damaged")
    run = read_run("runs/net-1")
    with pytest.raises(DamagedFileError, match=r"model\.safetensors"):
        run.read("model.safetensors")
    (bundle / "recipe.yaml").write_bytes(RECIPE + b"\n")
    with pytest.raises(DamagedFileError, match=r"recipe\.yaml"):
        read_run("runs/net-1")


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"no json", b"\xff", b'{"classes": ["a"]}'])
def test_a_record_of_something_else_is_refused(place: Path, content: bytes) -> None:
    files = {**dict.fromkeys(FILES, b""), "recipe.yaml": RECIPE, "record.json": content}
    commit_folder(place / "runs" / "odd" / "bundle", files)
    with pytest.raises(NotABundleError, match=r"record\.json"):
        read_run("runs/odd")


def test_frozen_weights_are_part_of_what_names_a_run(place: Path) -> None:
    """Two runs that trained the same values above other frozen ones are two bases."""
    found = set()
    for number, frozen in enumerate((None, b"one", b"other")):
        apart = {} if frozen is None else {FROZEN: frozen}
        files = {**dict.fromkeys(FILES, b""), "recipe.yaml": RECIPE, **apart}
        record = json.dumps({**dict.fromkeys(RECORDED, "x"), "classes": []}).encode()
        commit_folder(place / str(number) / "bundle", {**files, "record.json": record})
        run = read_run(place / str(number))
        assert run.weights == (
            ("model.safetensors",) if frozen is None else ("model.safetensors", FROZEN)
        )
        found.add(run.weights_sha256)
    assert len(found) == 3
