"""The README says only what is true: its commands, its surgery, its plan; docs/code.md its map."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from page_blocks import block_of

from tlcompile.compiler import prove_recipe
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.run.cli import VERBS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


CODE = (ROOT / "docs" / "code.md").read_text(encoding="utf-8")


def block(mark: str, text: str = README) -> str:
    return block_of(text, mark)


def surgery() -> list[tuple[str, str]]:
    """Return (model, recipe below its base) for each alternative of the table of surgery."""
    table = README.partition("<!-- surgery -->")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[3:]]
    return [
        (model, "\n".join(re.findall(r"`([^`]+)`", alternative)))
        for _, model, written in rows
        for alternative in written.split(" or ")
    ]


def file_map() -> str:
    """Return every module with the first sentence of its docstring."""
    files = [
        *sorted((ROOT / "tlcompile").rglob("*.py")),
        *sorted((ROOT / "hydra_plugins").glob("*.py")),
    ]
    assert len(files) > 60
    lines, folder = [], None
    for file in sorted(files, key=lambda f: (str(f.parent), f.name)):
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        sentence = " ".join(about.split("\n\n")[0].split())
        if file.parent != folder:
            folder = file.parent
            lines.append(f"{folder.relative_to(ROOT)}/")
        name = "" if file.name == "__init__.py" else file.name
        if name:
            lines.append(f"    {name:<22} {sentence}")
        else:
            lines[-1] += f"    {sentence}"
    return "\n".join(lines) + "\n"


def test_file_map_equals_the_tree() -> None:
    assert block("map", CODE) == file_map(), "python tests/test_readme.py prints the map"


def test_the_table_of_surgery_is_long_enough() -> None:
    assert len(surgery()) == 16


@pytest.mark.parametrize(("model", "lines"), surgery())
def test_surgery_in_the_readme_is_proved(model: str, lines: str) -> None:
    text = f"base: {{model: {model}}}\n{lines}\n"
    recipe = recipe_from(spell_out(read_recipe_text(text, "README.md")), (), "readme")
    for phase in recipe.phases():
        prove_recipe(phase, num_classes=5)


def test_commands_exist() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    commands = re.findall(r"^(tlcompile .*?)(?:\s+#.*)?$", blocks, re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command)
        assert words[1] in VERBS, command
        for word in words[2:]:
            if word.startswith("recipes/"):
                assert (ROOT / word).is_file(), command


def test_files_named_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:tlcompile|tests|docs|schemas)/[\w/.]+)`", text)
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name


def test_plan_in_the_readme_is_what_plan_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["plan", "recipes/ants_bees.yaml"]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line.rstrip() for line in block("plan").splitlines()] == printed


def test_recipe_in_the_readme_is_the_file() -> None:
    text = (ROOT / "recipes" / "ants_bees.yaml").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert block("recipe").strip() == body.strip()


if __name__ == "__main__":
    print(file_map(), end="")
