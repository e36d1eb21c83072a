"""docs/data.md says only what is true: its recipes train as they stand there."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from page_blocks import block_of
from PIL import Image
from tiny import make_pictures

from tlcompile.recipe.data import Dataset
from tlcompile.run.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    return block_of(PAGE, mark)


@pytest.fixture(autouse=True)
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_pictures(Path("birds"), ("jay", "wren"), count=10)
    rows = [
        f"{name}/{number}.png,{name},{number}.5,{'val' if number > 7 else 'train'}"
        for name in ("jay", "wren")
        for number in range(10)
    ]
    table = "image,species,grams,part\n" + "\n".join(rows) + "\n"
    Path("birds/birds.csv").write_text(table)
    monkeypatch.setenv("TLCOMPILE_CACHE", str(tmp_path / "cache"))


def test_classifier_with_a_map_trains_as_it_stands() -> None:
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        Path("streets", kind).mkdir(parents=True)
        for number in range(10):
            colour = (9, 9, 9) if kind == "images" else number % 2
            Image.new(mode, (12, 12), colour).save(f"streets/{kind}/{number}.png")
    Path("streets.yaml").write_text(block("map"))
    assert main(["train", "streets.yaml", "fine_tune.epochs=1"]) == 0


@pytest.mark.parametrize("mark", ["table", "outputs"])
def test_recipe_trains_as_it_stands(mark: str) -> None:
    Path("birds.yaml").write_text(block(mark))
    assert main(["train", "birds.yaml", "fine_tune.epochs=1"]) == 0


def test_bad_row_is_told_as_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    Path("birds.yaml").write_text(block("table"))
    with Path("birds/birds.csv").open("a") as table:
        table.write("x.png,jay,1,train\n")
    assert main(["train", "birds.yaml"]) != 0
    told = capsys.readouterr()
    lines = [line.strip() for line in (told.out + told.err).splitlines()]
    for line in PAGE.split("birds/birds.csv:22:1: ")[1].split("```")[0].splitlines():
        assert any(line.strip() in one for one in lines), line


def test_every_named_data_set_is_on_the_page() -> None:
    for name in get_args(Dataset):
        assert f"`{name}`" in PAGE
