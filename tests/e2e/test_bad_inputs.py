"""Wrong recipes, data, weights and disks: one clear message each, the right exit code, no traceback."""

from __future__ import annotations

import errno
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from durable_disks import CountingCalls
from safetensors.torch import save
from tiny import make_pictures
from torch import nn

from tlcompile.durable import system
from tlcompile.run.cli import main
from tlcompile.run.folder import read_record

DIGITS = """\
base: {model: digits_net}
freeze: {upto: block1}
data:
  dataset: digits
  classes: ["5", "6", "7"]
  per_class: 4
fine_tune:
  epochs: 1
"""


@dataclass(frozen=True)
class Bad:
    """A change to DIGITS and what must be said of it."""

    old: str
    new: str
    code: int
    says: tuple[str, ...]  # regular expressions
    arguments: tuple[str, ...] = ()


PICTURES = (
    'data:\n  dataset: digits\n  classes: ["5", "6", "7"]\n  per_class: 4\n',
    "data: pictures\n",
)

CASES = {
    "misspelt key": Bad(
        "epochs", "epoch", 2, (r"^r\.yaml:8:3: .*'epoch'.*\[unknown-key\]", "did you mean 'epochs'")
    ),
    "misspelt section": Bad(
        "freeze", "freze", 2, (r"^r\.yaml:2:1: .*'freze'", "did you mean 'freeze'")
    ),
    "misspelt vertex": Bad(
        "block1",
        "blok1",
        2,
        (r"^r\.yaml:2:16: .*'blok1'.*\[unknown-vertex\]", "did you mean 'block1'"),
    ),
    "misspelt model": Bad(
        "digits_net", "digit_net", 2, (r"^r\.yaml:1:15: .*'digit_net'", "digits_net")
    ),
    "misspelt data set": Bad(
        "dataset: digits", "dataset: digit", 2, (r"^r\.yaml:4:12: ", "digits")
    ),
    "wrong type": Bad("epochs: 1", "epochs: many", 2, (r"^r\.yaml:8:11: ", "whole number")),
    "out of range": Bad("epochs: 1", "epochs: 0", 2, (r"^r\.yaml:8:11: ", "at least 1|above 0")),
    "python tag": Bad(
        "digits_net", "!!python/object/apply:os.system [echo]", 2, (r"^r\.yaml:1:15: ",)
    ),
    "hydra node": Bad("fine_tune", "hydra", 2, (r"^r\.yaml:7:1: ", "hydra")),
    "not yaml": Bad("{model: digits_net}", "{model: digits_net", 2, (r"^r\.yaml:\d+:\d+: ",)),
    "unknown class": Bad('"7"', '"x"', 2, (r"^r\.yaml:5:23: class 'x'",)),
    "too many of a class": Bad(
        "per_class: 4", "per_class: 4000", 2, (r"^r\.yaml:6:14: class '5'", "write per_class: 14")
    ),
    "missing weights": Bad(
        "digits_net}",
        "digits_net, weights: no.safetensors}",
        2,
        (r"^r\.yaml:1:36: .*no\.safetensors", "no such file"),
    ),
    "unknown weights": Bad(
        "digits_net}", "digits_net, weights: V2}", 2, (r"^r\.yaml:1:36: ", "DIGITS_0_TO_4_V1")
    ),
    "wrong weights": Bad(
        "digits_net}",
        "digits_net, weights: other.safetensors}",
        2,
        (r"^r\.yaml:1:36: .*other\.safetensors",),
    ),
    "a folder of weights": Bad(
        "digits_net}",
        "digits_net, weights: ./}",
        2,
        ("it is a folder", r"name a file of it: base\.weights=other\.safetensors"),
    ),
    "a class of val alone": Bad(
        *PICTURES[:1],
        "data: strange\n",
        2,
        (r"^r\.yaml:3:7: class 'wasps' of strange/val", "mv strange/val/wasps strange/val/.wasps"),
    ),
    "results into a file": Bad(
        "freeze:",
        "run: {output_dir: r.yaml}\nfreeze:",
        74,
        (r"^r\.yaml:2:19: 'r\.yaml' could not be written", "write elsewhere.*run.output_dir"),
    ),
    "frozen without weights": Bad(
        "digits_net}",
        "digits_net, weights: none}",
        2,
        (r"^r\.yaml:1:36: ", "freeze: none|freeze.upto=none|weights"),
    ),
    "nothing trains": Bad("block1", "all", 2, (r"^r\.yaml:2:\d+: ", "all|nothing trains")),
    "no data": Bad(
        DIGITS[DIGITS.index("data:") : DIGITS.index("fine_tune")],
        "",
        2,
        (r"needs the key 'folder'",),
    ),
    "no folder": Bad(
        *PICTURES[:1], "data: nowhere\n", 2, (r"^r\.yaml:3:7: there is no folder 'nowhere'",)
    ),
    "folder and data set": Bad(
        "dataset: digits", "dataset: digits\n  folder: pictures", 2, (r"drop one",)
    ),
    "empty class": Bad(
        *PICTURES[:1], "data: hollow\n", 2, (r"^r\.yaml:3:7: class 'empty' has no image",)
    ),
    "bad images": Bad(
        *PICTURES,
        2,
        (r"^r\.yaml:3:7: 3 images cannot be read", "ants/0.png", "ants/5.png", "bees/2.png"),
    ),
    "bad images, live": Bad(*PICTURES, 2, (r"3 images cannot be read",), ("freeze=none",)),
    "binary with three": Bad(
        "freeze:",
        "task: binary\nfreeze:",
        2,
        (r"^r\.yaml:2:7: task binary wants 2 classes, the data has 3",),
    ),
    "augmented and frozen": Bad(
        "  per_class",
        "  augment: {train: [rotation]}\n  per_class",
        2,
        (r"^r\.yaml:6:20: ", r"features: \{views: 5\}", r"cache: off"),
    ),
    "views without augmentation": Bad(
        "freeze:",
        "features: {views: 2}\nfreeze:",
        2,
        (r"^r\.yaml:\d+:19: features\.views: it has no effect",),
    ),
    "smoothing of a yes or no": Bad(
        "epochs: 1", "label_smoothing: 0.1\ntask: binary", 2, ("label_smoothing has no effect",)
    ),
    "wrong override": Bad(
        "", "", 2, (r"^command line:1:13: ", "did you mean 'block1'"), ("freeze.upto=blok1",)
    ),
    "wrong key of an override": Bad(
        "", "", 2, (r"^command line:1:1: .*'epoch'",), ("fine_tune.epoch=3",)
    ),
    "sweep without -m": Bad(
        "", "", 2, (r"^command line:1:13: .*sweep", "add -m"), ("freeze.upto=stem,block1",)
    ),
    "unknown option": Bad("", "", 2, ("there is no option '--agian'",), ("--agian",)),
    "no such device": Bad(
        "", "", 2, (r"^command line:1:12: this machine has no device 'mps'",), ("run.device=mps",)
    ),
    "loss that is no number": Bad(
        "epochs: 1",
        "epochs: 3\n  optimizer: {name: sgd, lr: 1e6}\n  schedule: constant",
        1,
        (r"is not finite at epoch \d, step \d", "lr=100000"),
        ("freeze=none",),
    ),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with pictures, some of them cut, and another model's weights."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "pictures", side=20)
    for name in ("ants/0.png", "ants/5.png", "bees/2.png"):
        path = tmp_path / "pictures" / name
        path.write_bytes(path.read_bytes()[:200])
    make_pictures(tmp_path / "hollow", side=20)
    (tmp_path / "hollow" / "empty").mkdir()
    make_pictures(tmp_path / "strange" / "train", side=20)
    make_pictures(tmp_path / "strange" / "val", ("ants", "bees", "wasps"), count=1, side=20)
    (tmp_path / "other.safetensors").write_bytes(save(nn.Linear(3, 2).state_dict()))
    return tmp_path


def content(place: Path) -> dict[str, str]:
    files = (path for path in place.rglob("*") if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    bad = CASES[name]
    assert bad.old in DIGITS
    Path("r.yaml").write_text(DIGITS.replace(bad.old, bad.new, 1))
    before = content(place)
    code = main(["train", "r.yaml", *bad.arguments])
    said = capsys.readouterr().err
    for pattern in bad.says:
        assert re.search(pattern, " ".join(said.split()) if "^" not in pattern else said, re.M), (
            said
        )
    assert code == bad.code, said
    assert "Traceback" not in said
    assert "[unexpected]" not in said
    assert "\n  fix " in said
    after = content(place)
    assert before.items() <= after.items(), "data and recipe are as they were"
    finished = [f for f in place.rglob("record.json") if read_record(f.parent)]
    assert not finished, "a run that failed is not finished"
    assert not list(place.rglob("multirun.yaml"))


def test_all_problems_of_a_recipe_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = DIGITS.replace("epochs: 1", "epochs: x").replace("per_class: 4", "per_class: 0")
    Path("r.yaml").write_text(text.replace("upto", "upot"))
    assert main(["train", "r.yaml"]) == 2
    said = capsys.readouterr().err
    assert re.findall(r"^r\.yaml:(\d+):", said, re.M) == ["2", "6", "8"]


def test_no_recipe(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("check", "plan", "train"):
        assert main([verb, "nothing.yaml"]) in (2, 74)
        said = capsys.readouterr().err
        assert "nothing.yaml" in said
        assert "[unexpected]" not in said


# The disk; tests run as root, so a folder that may not be written is injected


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "no room to write"), (errno.EACCES, "no permission for"), (errno.EIO, "EIO")],
)
@pytest.mark.parametrize("call", [1, 5, 20])
def test_a_disk_that_fails(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    says: str,
    call: int,
) -> None:
    Path("r.yaml").write_text(DIGITS)
    before = content(place)
    calls = CountingCalls(call, OSError(number, "injected"))
    monkeypatch.setattr(system, "calls", calls)
    code = main(["train", "r.yaml"])
    said = capsys.readouterr().err
    assert code == 74, said
    assert says in said
    assert "[unexpected]" not in said
    assert before.items() <= content(place).items()
    monkeypatch.setattr(system, "calls", system.SystemCalls())
    assert main(["train", "r.yaml"]) == 0, "with room again the same command works"


def test_evaluate_and_predict_name_what_is_missing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text(DIGITS)
    assert main(["train", "r.yaml", "output_dir=runs"]) == 0
    capsys.readouterr()
    table: list[tuple[list[str], int, str]] = [
        (["evaluate", "rnus/x"], 2, "there is no run 'rnus/x'"),
        (["predict", "r-", "nothing.png"], 2, "there is no file or folder 'nothing.png'"),
        (["predict", "r-", "pictures"], 2, "3 images cannot be read"),
        (["predict", "r-", "hollow/empty"], 2, "folder 'hollow/empty' has no image"),
        (["predict", "r-", "hollow/ants/0.png", "--out", "r.yaml/x.csv"], 74, "write elsewhere"),
        (["predict", "pictures", "hollow"], 2, "name the folder of a finished run: runs/<name>"),
        (["evaluate", "r-", "nowhere"], 2, "there is no folder 'nowhere'"),
        (["evaluate", "r-", "hollow"], 2, "has no image in"),
        (["init", "--base", "resnet81", "--data", "pictures"], 2, "resnet"),
        (["zoo", "resnet81"], 2, "resnet18"),
    ]
    for words, code, says in table:
        assert main(words) == code, words
        said = capsys.readouterr().err
        assert says in " ".join(said.split()), said
        assert "[unexpected]" not in said


def test_an_unexpected_exception_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tlcompile.run.check

    def fail(*_given: Any) -> None:
        raise RuntimeError("something broke\nwith details")

    monkeypatch.setattr(tlcompile.run.check, "prove", fail)
    assert main(["check", "r.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[0] == "RuntimeError: something broke [unexpected]"
    assert "TLCOMPILE_TRACEBACK=1" in said
    monkeypatch.setenv("TLCOMPILE_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="something broke"):
        main(["check", "r.yaml"])
