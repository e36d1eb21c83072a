"""The command as a new user meets it: every verb, in a scratch folder, offline."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from tlcompile.data.digits import load_digits
from tlcompile.run.cli import VERBS, main
from tlcompile.run.say import progress, table_lines

DIGITS = """\
base: {model: digits_net}
freeze: {upto: block1}
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 8}
fine_tune: {epochs: 2, batch_size: 8}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(DIGITS)
    return "small.yaml"


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> object:
    return capsys


def tl(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    found = main(list(words))
    told = capsys.readouterr()
    assert found == code, told.err + told.out
    assert "\x1b" not in told.out + told.err, "no colours and bars where there is no terminal"
    if code == 0:
        assert told.err == ""
    return told.out if code == 0 else told.err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    told = tl(capsys, "--help")
    for verb in VERBS:
        assert f"\n  {verb} " in told
    assert main([]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([verb, "--help"], [verb, "x", "-h"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert f"example: tlcompile {VERBS[verb][2]}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tlcompile.run.cli import main; main(['--help']);"
        "print(sorted({'torch', 'torchvision', 'hydra', 'omegaconf', 'pydantic', 'rich'}"
        " & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'train'?" in tl(capsys, "trian", code=2)
    assert "there is no option '--foo'" in tl(capsys, "--foo", code=2)


def test_check_and_plan(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tl(capsys, "check", recipe).startswith("small.yaml: ok, ")
    plan = tl(capsys, "plan", recipe)
    for word in ("block1", "frozen", "replaced, trains", "features    block1.pool"):
        assert word in plan
    assert "block1.conv" in tl(capsys, "plan", recipe, "--full", "freeze=stem")
    data = json.loads(tl(capsys, "plan", "--json", recipe, "freeze=none"))
    assert data["parameters"]["frozen"] == 0
    assert data["classes"] == 3
    assert json.loads(tl(capsys, "check", recipe, "--json"))["ok"] is True
    assert not Path("runs").exists()


def test_unknown_classes_are_said(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(recipe).write_text("base: digits_net\ndata: nowhere\n")
    assert "classes     unknown (--classes N)" in tl(capsys, "check", recipe)
    assert "unknown" not in tl(capsys, "check", recipe, "--classes", "7")


def test_train_twice_again_evaluate_predict(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tl(capsys, "train", recipe)
    (folder,) = Path("runs").iterdir()
    for word in ("epoch   1", "freeze proof:", "95 % interval", f"tlcompile predict {folder}",
                 f"tlcompile evaluate {folder}", "freeze=none"):  # fmt: skip
        assert word in told, word
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "recipe.yaml", "record.json", "plan.txt", "tensors.csv", "metrics.csv", "bundle", "last",
        "classes.csv", "confusion.csv", "events.jsonl", "report.html",
    }  # fmt: skip
    with (folder / "tensors.csv").open() as file:
        tensors = {row["tensor"]: row for row in csv.DictReader(file)}
    assert len(tensors) == 10
    assert list(tensors["fc.weight"].values())[2:] == [
        "3x128", "5x128", "replaced", "", "default", "trains"
    ]  # fmt: skip
    assert tensors["stem.conv.weight"]["source"] == "DIGITS_0_TO_4_V1"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert set(rows[0]) == {"epoch", "phase", "train/loss", "train/accuracy", "val/loss",
                            "val/accuracy", "lr", "seconds", "val/f1"}  # fmt: skip

    again = tl(capsys, "train", recipe)
    assert again.startswith(f"{folder} is finished: epoch ")
    tl(capsys, "train", recipe, "--again")
    assert {p.name for p in Path("runs").iterdir()} == {folder.name, f"{folder.name}-2"}

    score = tl(capsys, "evaluate", str(folder))
    best = json.loads((folder / "record.json").read_text())["best"]["val"]
    assert f"accuracy {100 * best['accuracy']:.1f} % (n = {best['n']}," in score
    data = json.loads(tl(capsys, "evaluate", str(folder), "--json"))
    assert data["accuracy"] == best["accuracy"]

    digits = load_digits(1)
    for name in ("5", "6", "7"):
        (Path("photos") / name).mkdir(parents=True)
        for index in digits.members()[int(name)][:3]:
            pixels = digits.read(index)[0].numpy()
            Image.fromarray(pixels, "L").save(f"photos/{name}/{index}.png")
    table = tl(capsys, "predict", str(folder), "photos", "--out", "p.csv")
    assert table.count(".png") == 9
    with Path("p.csv").open() as file:
        written = list(csv.DictReader(file))
    assert len(written) == 9
    assert sum(float(written[0][name]) for name in "567") == pytest.approx(1, abs=1e-5)
    one = json.loads(tl(capsys, "predict", "--json", f"runs/{folder.name}", written[0]["image"]))
    assert one[0]["class"] == written[0]["class"]
    judged = tl(capsys, "evaluate", str(folder), "photos")
    assert "(n = 9," in judged
    assert left_behind(tmp_path) == {"small.yaml", "runs", "photos", "p.csv"}


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_unfinished_run_without_a_checkpoint_starts_over(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tl(capsys, "train", recipe)
    (folder,) = Path("runs").iterdir()
    first = (folder / "bundle" / "model.safetensors").read_bytes()
    (folder / "record.json").unlink()
    assert f"{folder} holds an unfinished run" in tl(capsys, "train", recipe)
    assert (folder / "bundle" / "model.safetensors").read_bytes() == first


def test_init_writes_a_recipe_that_checks(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny import make_pictures

    make_pictures(tmp_path / "my photos: 1", side=8)
    words = ["init", "--base", "digits_net", "--data", "my photos: 1", "--out", "mine.yaml"]
    assert "12 training images of 2 classes: ants, bees" in tl(capsys, *words)
    assert "exists already" in tl(capsys, *words, code=2)
    assert tl(capsys, "check", "mine.yaml").startswith("mine.yaml: ok")
    tl(capsys, "train", "mine.yaml", "fine_tune.epochs=1")


def test_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    names = tl(capsys, "zoo").splitlines()
    assert {"digits_net", "resnet18"} <= set(names)
    assert tl(capsys, "zoo", "resnet1*").splitlines() == ["resnet101", "resnet152", "resnet18"]
    rows = json.loads(tl(capsys, "zoo", "digits_net", "--json"))
    assert {row["stage"] for row in rows} >= {"stage1", "head"}
    assert "block1.pool" in tl(capsys, "zoo", "digits_net")


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(tl(capsys, "schema"))["title"] == "A recipe of tlcompile"


def test_tables_are_never_folded() -> None:
    lines = table_lines(("name", "n"), [("a" * 150, "1,000"), ("b", "7")])
    assert lines[0].split() == ["name", "n"]
    assert lines[2].endswith("  1,000")
    assert lines[3].endswith("      7")
    assert len(lines) == 4
    assert table_lines(("name",), []) == ["name", "----"]


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 3) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("work [odd]", 3) as advance:
        advance(3)
    told = capsys.readouterr()
    assert told.out == ""
    assert "work [odd]" in told.err


def test_an_interrupt_is_130_without_a_traceback(recipe: str) -> None:
    command = [sys.executable, "-m", "tlcompile", "train", recipe, "fine_tune.epochs=100000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:  # lines arrive at once though this is a pipe
            if line.startswith("epoch   2"):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("stopped by Ctrl-C [interrupted]\n")
    assert "Traceback" not in rest


def test_a_closed_pipe_is_no_error() -> None:
    command = (
        f"{sys.executable} -m tlcompile zoo 'resnet*' --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[0"]
    assert done.stderr == ""


def test_device_and_threads_are_recorded(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    tl(capsys, "train", recipe, "run.device=cpu")
    (folder,) = Path("runs").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["device"].startswith("cpu")
    assert record["threads"] == torch.get_num_threads()
    assert record["versions"]["torch"] == torch.__version__
