"""tlcompile report: a page of a run, a page of a sweep, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from durable_disks import do_not_wait
from tiny import make_recipe

from tlcompile.errors.finding import FileExistsAlreadyError
from tlcompile.recipe.load import load_recipe
from tlcompile.run.cli import main
from tlcompile.run.launch import Job
from tlcompile.run.report import page_line, write_run_report, write_sweep_report
from tlcompile.run.report_advice import found_at
from tlcompile.run.report_run import frozen_words, read_epochs, run_data
from tlcompile.run.report_samples import picture
from tlcompile.run.report_sweep import overrides_of, sweep_data
from tlcompile.run.single import train_job
from tlcompile.training.ranks import ALONE

SMALL = """\
name: small
base: {model: digits_net}
freeze: {upto: block1}
data: {dataset: digits, classes: ["5", "6", "8"], per_class: 8}
fine_tune: {epochs: 2, batch_size: 8}
"""
POINTS = ("freeze.upto=block2,none,block1", "fine_tune.epochs=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs/ and sweeps/; the points were trained from the output on."""
    place = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        do_not_wait(patch)
        Path("small.yaml").write_text(SMALL)
        assert main(["train", "small.yaml"]) == 0
        assert main(["train", "small.yaml", "-m", *POINTS]) == 0
    pages = list(
        place.rglob("report.html")
    )  # of the run and of the sweep; here the verb writes them
    assert [page.parent.parent.name for page in sorted(pages)] == ["runs", "sweeps"]
    for page in pages:
        page.unlink()
    return place


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a copy of it."""
    shutil.copytree(trained, tmp_path / "copy")
    do_not_wait(monkeypatch)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def only(pattern: str) -> Path:
    (found,) = [path for path in Path().glob(pattern) if path.is_dir()]
    return found


def report(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["report", *words]) == code
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return told.out if code == 0 else told.err


def test_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = only("runs/*")
    assert report(capsys, "runs/small").strip().endswith(f"{folder}/report.html")
    page = (folder / "report.html").read_text()
    for heading in ("Curves", "Scores", "Classes", "Mistakes", "Model", "Rates and phases"):
        assert f"<h2>{heading}</h2>" in page, heading
    assert "data:image/png;base64," in page, "digits of 8 x 8 are shown pixel by pixel"
    assert 'data-name="block1.conv"' in page
    assert "frozen tensors byte-identical" in page
    assert f"tlcompile train {folder}/recipe.yaml --again" in page
    assert str(here) not in page


def test_the_mistakes_are_those_of_the_record(here: Path) -> None:
    """Predicted again, by the saved weights, as many images are wrong as training counted."""
    data = run_data(only("runs/*"))
    val = next(score for score in data.scores if score.split == "val")
    (found,) = data.predicted
    total = round(val.count * (1 - val.values["accuracy"]))
    assert found.lead.startswith(f"{total} of {val.count} validation images")
    wrong = sum(
        n for i, row in enumerate(data.outputs[0].confusion) for j, n in enumerate(row) if i != j
    )
    assert total == wrong > 0
    sure = [float(one.sure.removesuffix(" %")) for one in found.tiles]
    assert sure == sorted(sure, reverse=True)
    assert all(one.true != one.said for one in found.tiles)
    assert len(sure) == min(24, wrong)


def test_without_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(capsys, "runs/small", "--no-images", "--out", "page.html")
    page = Path("page.html").read_text()
    assert "data:image" not in page
    assert "Mistakes</h2>" not in page
    assert f"<code>tlcompile report {only('runs/*')}</code>" in page


def test_a_run_ends_with_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """As `report --no-images` writes it, from the models that are there: of each phase its graph."""
    monkeypatch.chdir(tmp_path)
    phases = "{phases: [{name: head, epochs: 1}, {name: <b>, freeze: stem, epochs: 1}]}"
    text = SMALL.replace("{epochs: 2, batch_size: 8}", phases).replace("block1", "head")
    Path("small.yaml").write_text(text)
    assert main(["train", "small.yaml"]) == 0
    folder = only("runs/*")
    told = capsys.readouterr().out
    assert (
        f"{folder}/report.html; with the images that it gets wrong: tlcompile report {folder}\n"
        in told
    )
    page = (folder / "report.html").read_text()
    report(capsys, str(folder), "--no-images", "--out", "again.html")
    assert page == Path("again.html").read_text()
    assert page.count('class="graph-picture"') == 2


def test_a_run_whose_page_cannot_be_written_is_whole(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = only("runs/*")
    (folder / "report.html").write_text("mine")
    told = page_line(folder, ())
    assert told.startswith("page        not written: ")
    assert told.endswith(f"(tlcompile report {folder})")
    assert (folder / "report.html").read_text() == "mine"


def test_a_point_writes_no_page_of_its_own(here: Path) -> None:
    assert len(list(only("sweeps/*").glob("*/record.json"))) == 3
    assert not list(only("sweeps/*").glob("*/report.html"))
    train_job(Job(load_recipe(Path("small.yaml")), Path("apart"), {"swept": True}), ALONE)
    assert Path("apart/record.json").exists()
    assert not Path("apart/report.html").exists()


def test_a_bundle_alone_has_a_page(here: Path) -> None:
    shutil.copytree(only("runs/*") / "bundle", "alone")
    page = write_run_report(Path("alone")).read_text()
    assert "<h2>Scores</h2>" in page
    assert "<h2>Curves</h2>" not in page


def test_a_sweep_in_the_order_of_the_graph(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = only("sweeps/*")
    assert sweep_data(folder).freeze_points == ("none", "block1", "block2")
    assert str(folder) in report(capsys, "small-")
    page = (folder / "report.html").read_text()
    assert re.findall(r'text-anchor="middle">(none|block\d)<', page) == ["none", "block1", "block2"]
    for point in sweep_data(folder).points:
        assert point.command in page
        assert Path(point.command.split()[-1].strip("'")).is_file()


def test_a_sweep_keeps_the_command_that_was_typed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quoted for a shell; without --again, which says how one time went."""
    folder = only("sweeps/*")
    command = f"tlcompile train small.yaml -m {' '.join(POINTS)}"
    assert (folder / "command.txt").read_text() == f"{command}\n"
    assert sweep_data(folder).command == command
    assert sweep_data(folder).points[0].train_curve
    Path("it's.yaml").write_text(SMALL)
    odd = ("fine_tune.epochs=1", "freeze={upto: block1},{upto: block2}")
    assert main(["train", "it's.yaml", "--again", *odd, "-m"]) == 0
    (other,) = [path for path in Path("sweeps").glob("*/command.txt") if path.parent != folder]
    words = shlex.split(other.read_text())
    assert words == ["tlcompile", "train", "it's.yaml", "-m", *odd]
    assert main([*words[1:]]) == 0
    told = capsys.readouterr().out
    assert told.count("finished before: ") == 2, "the same sweep, all there"


def test_a_point_without_a_recipe_has_the_sweeps_command_with_its_values(here: Path) -> None:
    folder = only("sweeps/*")
    for path in folder.glob("*block2*/recipe.yaml"):
        path.unlink()
    command = next(p.command for p in sweep_data(folder).points if p.freeze == "block2")
    assert command == "tlcompile train small.yaml fine_tune.epochs=1 freeze.upto=block2"
    assert "-m" not in command
    (folder / "command.txt").unlink()
    assert sweep_data(folder).command == ""
    assert "" in {point.command for point in sweep_data(folder).points}


def test_a_sweep_that_was_moved(here: Path) -> None:
    before = sweep_data(only("sweeps/*"))
    only("sweeps/*").rename("elsewhere")
    after = sweep_data(Path("elsewhere"))
    assert [p.value for p in after.points] == [p.value for p in before.points]
    assert all(p.folder.startswith("elsewhere/") and p.curve for p in after.points)


def test_a_point_that_failed_is_a_row(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = only("sweeps/*")
    path = folder / "manifest.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    blank = dict.fromkeys(
        ("trainable", "lr", "best_epoch", "metric", "best", "n", "low95", "high95"), ""
    )
    rows[0] |= {**blank, "state": "failed", "error": "</script> ran out of memory"}
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report(capsys, str(folder))
    page = (folder / "report.html").read_text()
    assert "&lt;/script&gt; ran out of memory" in page
    assert "1 failed" in page
    assert "failed  freeze.upto=block2" in report(capsys, str(folder), "--text")


def test_points_that_were_chosen_by_other_values_are_not_compared(here: Path) -> None:
    """A loss of 1.7 is no accuracy of 170 %."""
    folder = only("sweeps/*")
    path = folder / "manifest.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    rows[1] |= {"metric": "val/loss", "best": "1.7", "low95": "", "high95": ""}
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = sweep_data(folder)
    assert [point.value is None for point in data.points] == [False, True, False]
    assert data.notes == ("1 of 3 points have no value here: theirs is not val/accuracy.",)


def test_in_short(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, "runs/small", "--text")
    assert told.startswith("small: accuracy ")
    assert "95 % interval" in told
    assert report(capsys, "sweeps/small", "--text").startswith("small: 3 points, ")
    assert not list(Path().rglob("report.html"))


def test_the_charts_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "charts.svg" in report(capsys, "sweeps/small", "--svg", "charts.svg")
    assert Path("charts.svg").read_text().startswith("<svg")
    report(capsys, "sweeps/small", "--svg", "charts.svg")  # ours: written anew


def advice(**ranks: int) -> str:
    points = [{"freeze": name, "also": [f"{name}.pool"], "rank": r} for name, r in ranks.items()]
    Path("advice.json").write_text(json.dumps({"points": points}))
    return "advice.json"


def test_a_sweep_says_how_good_advice_was(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = found_at(sweep_data(only("sweeps/*")))
    best, *_, worst = sorted(found, key=found.__getitem__, reverse=True)
    order = {name: i + 1 for i, name in enumerate(sorted(found, key=lambda n: -found[n]))}
    told = report(capsys, "sweeps/small", "--text", "--advice", advice(**order, other=9))
    assert f"The point that was advised, {best}, is the best that was found." in told
    assert "results is 1.00" in told
    wrong = {name: 4 - rank for name, rank in order.items()}
    told = report(capsys, "sweeps/small", "--text", "--advice", advice(**wrong))
    lost = f"costs {100 * (found[best] - found[worst]):.1f} %"
    assert f"advised, {worst}, instead of the best that was found, {best}, {lost}" in told
    report(capsys, "sweeps/small", "--advice", "advice.json")
    assert "<h2>Advice beforehand</h2>" in (only("sweeps/*") / "report.html").read_text()


def test_what_is_no_advice_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("{", "[]", '{"points": [1]}'):
        Path("wrong.json").write_text(text)
        assert "[command-line]" in report(capsys, "sweeps/small", "--advice", "wrong.json", code=2)
    told = report(capsys, "sweeps/small", "--advice", advice(layer9=1), code=2)
    assert "about none of the sweep's freeze points" in told


def test_a_strangers_file_stays(here: Path) -> None:
    Path("mine.html").write_text("mine")
    for write, folder in (
        (write_run_report, only("runs/*")),
        (write_sweep_report, only("sweeps/*")),
    ):
        with pytest.raises(FileExistsAlreadyError):
            write(folder, "mine.html")
    assert Path("mine.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (("runs/small", "--svg", "x.svg"), "command-line"),
        (("runs/small", "--advice", "x.json"), "command-line"),
        (("sweeps/small", "--no-images"), "command-line"),
        (("sweeps/small", "--text", "--out", "x.svg"), "command-line"),
        (("sweeps/small", "--svg", "x.svg", "--out", "x.html"), "command-line"),
        (("nothing",), "unknown-run"),
        (("runs",), "not-a-bundle"),
    ],
)
def test_refusals(
    here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], slug: str
) -> None:
    assert f"[{slug}]" in report(capsys, *words, code=2)
    assert not Path("x.svg").exists()


def test_images_that_are_gone_are_said_to_be(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other images than the run's own are never shown as its mistakes."""
    monkeypatch.setattr("tlcompile.run.report_samples.images_digest", lambda _samples: "other")
    found = run_data(only("runs/*"))
    assert found.predicted == ()
    assert "no longer the run's own" in found.predicted_note


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_image_becomes_small(channels: int) -> None:
    uri, pixelated = picture(torch.zeros(channels, 600, 300, dtype=torch.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert not pixelated
    assert len(uri) < 10_000
    assert picture(torch.zeros(channels, 8, 8, dtype=torch.uint8))[1]


def test_overrides_are_read_back() -> None:
    text = "freeze.upto=[layer2, layer3] fine_tune.optimizer={name: sgd, lr: 1} ~data.dataset name='a b'"
    assert overrides_of(text) == {
        "freeze.upto": "[layer2, layer3]",
        "fine_tune.optimizer": "{name: sgd, lr: 1}",
        "~data.dataset": "",
        "name": "'a b'",
    }
    assert overrides_of("'+a=1 b=2") == {"+a": "1", "b": "2"}


def test_what_is_frozen_is_told_of_each_phase() -> None:
    phases = [{"name": "a", "freeze": "block2", "epochs": 1}, {"name": "b", "epochs": 1}]
    assert frozen_words(make_recipe(freeze="head", fine_tune={"phases": phases})) == (
        "a: block2; b: head"
    )
    assert frozen_words(make_recipe(freeze={"only": "stem"})) == "only stem"


def test_a_line_of_metrics_that_a_kill_has_cut_is_left_out(tmp_path: Path) -> None:
    lines = ["epoch,phase,train/loss,val/loss", "1,main,0.500000,nan", "2,main,0.4", "3,main,n"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    assert [(one.number, one.values["train/loss"]) for one in read_epochs(tmp_path)] == [
        (1, 0.5), (2, 0.4),
    ]  # fmt: skip
