"""docs/features.md says only what is true: its commands and its Python run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from page_blocks import block_of

from tlcompile.recipe.data import Features
from tlcompile.recipe.schema import Recipe
from tlcompile.run.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")


def block(mark: str) -> str:
    return block_of(PAGE, mark)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLCOMPILE_CACHE", str(tmp_path / "cache"))
    Path("recipes").symlink_to(ROOT / "recipes")


def test_the_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line, comments=True) for line in block("commands").splitlines()]
    assert len(commands) == 6
    for words in commands:
        assert main(words[1:]) == 0, words
    out = capsys.readouterr().out
    assert "0 hits, 499 misses" in out
    assert "evicted 2 sets, 998 rows" in out, "features and images"


def test_the_python_runs() -> None:
    exec(compile(block("python"), "docs/features.md", "exec"), {})
    assert Path("features/digits/features.json").is_file()


def test_the_keys_are_those_of_a_recipe() -> None:
    table = PAGE.partition("## What a recipe says")[2].partition("\n\n`")[0]
    named = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
    of_features = {f"features.{name}" for name in Features.model_fields}
    assert set(named) == of_features | {"data.augment.seed", "run.cache", "run.cache_budget"}
    for name in named:
        section, *rest = name.split(".")
        fields = Recipe.model_fields[section].annotation
        for part in rest:
            assert part in fields.model_fields, name  # type: ignore[union-attr]
            fields = fields.model_fields[part].annotation  # type: ignore[union-attr]
