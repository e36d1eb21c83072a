"""docs/dl4j.md and the tests agree: every case of DL4J once, every named test there, none unnamed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dl4j.md").read_text(encoding="utf-8")

# Tests of DL4J that its sources hold, section by section.
CASES = {"A": 11, "B": 10, "C": 4, "D": 3, "E": 13, "F": 3, "G": 4, "H": 5}
ROWS = {"cases": 53, "faults": 39, "gaps": 17}


def rows(name: str) -> list[list[str]]:
    """Return the cells of one table, without its head."""
    found = re.search(rf"<!-- {name} -->\n((?:\|.*\n)+)", PAGE)
    assert found, name
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in found[1].splitlines()[2:]
    ]  # fmt: skip


def names_in(paths: list[Path]) -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    return {
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_case_stands_once() -> None:
    listed = [row[0] for row in rows("cases")]
    assert listed == [f"{section}{i + 1}" for section, n in CASES.items() for i in range(n)]


def test_every_row_has_a_test() -> None:
    every = names_in(sorted((ROOT / "tests").rglob("test_*.py")))
    assert len(every) > 500
    assert {name: len(rows(name)) for name in ROWS} == ROWS
    for row in [row for name in ROWS for row in rows(name)]:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert set(named) <= every, row
        assert named, row


def test_a_case_is_named_by_its_test() -> None:
    for case, _, here in rows("cases"):
        named = re.findall(r"`test_(\w+)`", here)
        ids = {part for name in named for part in name.split("_")}
        assert case.lower() in ids or case in ("G1", "G4"), case


def test_every_test_of_dl4j_is_listed() -> None:
    files = sorted((ROOT / "tests" / "parity").glob("test_dl4j_*faults.py"))
    files += [ROOT / "tests" / "parity" / "test_dl4j_gaps.py"]
    assert len(files) == 3
    listed = set(re.findall(r"`(test_\w+)`", PAGE))
    assert names_in(files) - listed == {"test_vertices_named_with_the_input_alone"}


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))))
def test_files_named_on_the_page_exist(file: str) -> None:
    assert (ROOT / file).is_file()
