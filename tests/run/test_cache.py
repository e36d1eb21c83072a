"""`tlcompile cache ls|verify|gc`: what is stored is seen, checked and evicted from the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tlcompile.features.root import cache_root
from tlcompile.run.cli import main
from tlcompile.store.about import About
from tlcompile.store.store import Store

ROWS = 3


def stored(cache: Path, name: str, *, used: float, pixels: bool = False) -> About:
    """Store a few rows of a made-up set; `used` is when, in seconds since 1970."""
    made_of: dict[str, Any] = {"preprocessing": {"resize": 256}}
    if not pixels:
        inputs, arithmetic = {"x": [3, 224, 224]}, {"precision": "exact", "chunk": 32}
        made_of = {"base": "resnet18", "input": inputs, "arithmetic": arithmetic}
    form = ((3, 8, 8), "uint8") if pixels else ((512,), "float32")
    about = About(name * 64, "pixels" if pixels else "layer3", *form, made_of)
    one = Store(cache).open(about)
    keys = np.random.default_rng(ord(name)).integers(256, size=(ROWS, 32), dtype=np.uint8)
    rows = torch.zeros(ROWS, *about.shape).to(torch.uint8 if pixels else torch.float32)
    one.write(keys, rows, 1.5)
    for file in cache.rglob(f"{about.key}/*"):
        os.utime(file, (used, used))
    return about


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    stored(tmp_path, "b", used=1_700_000_000)
    stored(tmp_path, "a", used=1_600_000_000)
    stored(tmp_path, "c", used=1_650_000_000, pixels=True)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["cache", *words]) == code
    out, err = capsys.readouterr()
    assert (err == "") == (code != 2)
    return out or err


def data(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    return json.loads(told(capsys, *words, "--json", code=code))


def blocks(cache: Path) -> list[Path]:
    return sorted(cache.glob("features/*/??/*/*.rows"))


def test_ls_has_one_line_a_set(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "ls", "--cache", str(cache)).splitlines()
    cells = [line.split() for line in lines]
    assert cells[0][:4] == ["model", "vertex", "precision", "size"]
    assert [line[-1] for line in cells[2:5]] == ["a" * 8, "c" * 8, "b" * 8]
    assert cells[2][:5] == ["resnet18", "layer3", "exact", "3x224x224", "3"]
    assert cells[3][:5] == ["any", "pixels", "uint8", "3x8x8", "3"]
    assert cells[2][6] == "1.5"
    assert cells[2][7].startswith("2020-09-1")
    assert lines[6].startswith("3 sets, 9 rows, ")
    assert lines[6].endswith(str(cache))
    assert lines[7].startswith("budget 50 GB")


def test_ls_as_data_has_every_number(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, "ls", "--cache", str(cache))
    assert found["bytes"] == sum(one["bytes"] for one in found["sets"])
    assert found["root"] == str(cache)
    assert found["budget"] == 50 * 10**9
    (first, *_) = found["sets"]
    assert first["key"] == "a" * 64
    assert first["shape"] == [512]
    assert (first["rows"], first["blocks"], first["last_used"]) == (3, 1, 1_600_000_000)


def test_data_have_the_documented_keys(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
    section = page.split("\n## cache\n")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `([\w.]+)`", section, re.MULTILINE))
    found = [data(capsys, action, "--cache", str(cache)) for action in ("ls", "verify", "gc")]
    inner = {f"sets.{name}" for name in found[0]["sets"][0]}
    assert {key for one in found for key in one} | inner == documented


@pytest.mark.parametrize("folder", ["empty", "missing"])
@pytest.mark.parametrize("action", ["ls", "verify", "gc"])
def test_a_cache_with_nothing_in_it_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    out = told(capsys, action, "--cache", str(tmp_path / folder))
    assert "0 sets, 0 rows, 0 B" in out
    assert not (tmp_path / "missing").exists()


def test_the_cache_is_where_runs_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TLCOMPILE_CACHE", str(tmp_path / "mine"))
    assert cache_root() == tmp_path / "mine"
    stored(tmp_path / "mine", "d", used=1_600_000_000)
    assert data(capsys, "ls")["sets"][0]["key"] == "d" * 64
    monkeypatch.delenv("TLCOMPILE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    assert data(capsys, "ls")["root"] == str(tmp_path / "theirs" / "tlcompile")


def test_verify_says_that_all_is_as_it_was(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, "verify", "--cache", str(cache))
    assert out.startswith("3 sets, 9 rows, ")
    assert "every byte is as it was written" in out
    assert data(capsys, "verify", "--cache", str(cache))["damaged"] == []


@pytest.mark.parametrize("place", [0, 200, -1])
def test_verify_puts_a_damaged_block_aside(
    cache: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    bad = blocks(cache)[1]
    content = bytearray(bad.read_bytes())
    content[place] ^= 1
    bad.write_bytes(content)
    out = told(capsys, "verify", "--cache", str(cache), code=1)
    assert out.startswith(f"{bad}: ")
    assert not bad.exists()
    assert len(blocks(cache)) == 2
    (aside,) = (path for path in cache.rglob("quarantine/*/*") if path.is_file())
    assert aside.read_bytes() == content
    assert str(aside) in out
    assert "every byte" in told(capsys, "verify", "--cache", str(cache))
    assert "1 damaged file was put aside" in told(capsys, "ls", "--cache", str(cache))


def test_verify_finds_what_is_swapped_and_what_is_not_the_store_s(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = blocks(cache)[:2]
    (second.parent / first.name).write_bytes(first.read_bytes())
    (second.parent / "notes.txt").write_text("mine")
    found = data(capsys, "verify", "--cache", str(cache), code=1)
    assert found["ok"] is False
    assert {Path(one["path"]).name for one in found["damaged"]} == {first.name, "notes.txt"}
    assert all(one["reason"] and Path(one["aside"]).is_file() for one in found["damaged"])


def test_gc_evicts_the_least_recently_used_first(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {
        one["key"][0]: one["bytes"] for one in data(capsys, "ls", "--cache", str(cache))["sets"]
    }
    budget = f"{sizes['b'] + sizes['c']} B"
    out = told(capsys, "gc", "--cache", str(cache), "--budget", budget)
    assert out.splitlines()[2].endswith("a" * 8)
    assert "evicted 1 set, 3 rows, " in out
    assert "left 2 sets, 6 rows, " in out
    assert len(blocks(cache)) == 2
    found = data(capsys, "gc", "--cache", str(cache), "--all")
    assert [one["key"][0] for one in found["evicted"]] == ["c", "b"]
    assert found["sets"] == []
    assert blocks(cache) == []


def test_gc_within_the_budget_evicts_nothing(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "evicted 0 sets" in told(capsys, "gc", "--cache", str(cache))
    assert len(blocks(cache)) == 3


def test_gc_leaves_what_a_run_is_computing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Store(cache).open(About("a" * 64, "layer3", (512,), "float32"))
    unknown = np.zeros((1, 32), dtype=np.uint8)
    with one.lease(unknown):
        out = told(capsys, "gc", "--cache", str(cache), "--all")
    assert "evicted 2 sets" in out
    assert "runs that are computing keep their sets" in out


WRONG = {
    "a word": (["list"], "does not know 'list'", "wanted  ls, verify, gc"),
    "a slip": (["verfy"], "does not know 'verfy'", "did you mean 'verify'?"),
    "nothing": ([], "required: ls|verify|gc", "cache --help"),
    "no size": (["gc", "--budget", "20XB"], "'20XB'", "a number with a unit"),
    "a negative size": (["gc", "--budget=-1GB"], "'-1GB'", "20GB"),
    "an idle budget": (["ls", "--budget", "20GB"], "--budget has no effect", "only on gc"),
    "an idle all": (["verify", "--all"], "--all has no effect", "only on gc"),
    "both": (["gc", "--all", "--budget", "1GB"], "say two things", "keep one"),
    "no folder": (["ls", "--cache", __file__], "is no folder", "test_cache.py"),
    "an option": (["gc", "--buget", "1GB"], "'--buget'", "did you mean '--budget'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_one_message(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, *said = WRONG[case]
    out = told(capsys, *words, code=2)
    assert "[command-line]" in out
    assert all(
        text in " ".join(out.split()) for text in map(str, [" ".join(s.split()) for s in said])
    )


@pytest.mark.parametrize("size", ["20GB", "500 MB", "1.5 GiB", "4096 B", "0 B"])
def test_a_size_is_written_as_people_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    assert "left 0 sets" in told(capsys, "gc", "--cache", str(tmp_path), "--budget", size)


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from tlcompile.run.cli import main\n"
        "try: main(['cache', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("example: tlcompile cache gc --budget 20GB\nFalse\n")
