"""What reading does to images is said of those that are decoded in this run, and of no others."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.run.train import train_recipe


def notes(tmp_path: Path, name: str, freeze: str, base: TinyNet) -> list[str]:
    recipe = make_recipe(
        base={"model": "digits_net", "size": 24},
        data={"folder": str(tmp_path / "data")},
        freeze=freeze,
        fine_tune={"epochs": 1},
        run={"cache": str(tmp_path / "cache")},
    )
    lines: list[str] = []
    train_recipe(recipe, tmp_path / name, base=base, say=lines.append)
    return [line for line in lines if line.startswith("images ") and " rows: " not in line]


def test_each_image_is_told_of_when_it_is_decoded(tmp_path: Path) -> None:
    ants = make_pictures(tmp_path / "data") / "ants"
    for number in (0, 1):
        Image.open(ants / f"{number}.png").convert("RGBA").save(ants / f"{number}.png")
    base = TinyNet()
    told = notes(tmp_path, "cold", "bn1", base)
    assert sum(int(line.split(": ")[-1].split(" of ")[0]) for line in told) == 2
    assert all("transparent, laid on white" in line for line in told)
    assert notes(tmp_path, "warm", "bn1", base) == []
    assert notes(tmp_path, "other point", "bn2", base) == [], "its images are stored, prepared"
