"""Advice on freeze points: what is compared, what is told, and that runs find what it computed."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor, nn

from tlcompile.errors.advice import NoAdviceForTaskError, TooFewToCompareError
from tlcompile.errors.data import UnreadableImagesError
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.run.advice_text import commands_of
from tlcompile.run.advise import read_points
from tlcompile.run.advising import Advice, advise
from tlcompile.run.cli import main
from tlcompile.run.splits import open_splits
from tlcompile.run.train import train_recipe
from tlcompile.run.vectors import pooled
from tlcompile.sweep.transferability import h_score, leep, log_me, probe
from tlcompile.zoo.base import base_from_module

DIGITS = str(Path("recipes/digits.yaml").resolve())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=10, side=20)


def recipe_of(pictures: Path, **sections: Any) -> Recipe:
    sections = {"data": {"folder": str(pictures)}, "freeze": "head", **sections}
    return make_recipe(base={"model": "digits_net", "size": 16}, **sections)


def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


@pytest.fixture(scope="module")
def plain(pictures: Path) -> Advice:
    return advise(recipe_of(pictures), base=net())


def named_in(advice: Advice) -> set[str]:
    return {name for one in advice.points for name in (one.scored.point, *one.scored.also)}


# What is compared


def images_of(recipe: Recipe) -> tuple[Tensor, np.ndarray]:
    """Prepare the training images as ImageNet's statistics want it, by hand."""
    samples = open_splits(recipe, 3, lambda _line: None).train
    preprocessing = base_from_module(net(), 16).preprocessing
    images = [preprocessing.apply(samples.read(index)) for index in range(len(samples))]
    return torch.stack(images), np.array(samples.labels)


def test_scores_are_those_of_the_pooled_outputs_of_the_plain_model(
    pictures: Path, plain: Advice
) -> None:
    recipe, base, advice = recipe_of(pictures), net(), plain
    x, labels = images_of(recipe)
    with torch.no_grad():
        first = base.bn1(base.conv1(x)).relu()
        last = base.bn2(base.conv2(first)).relu().mean((2, 3))
        own = base(x).softmax(1)
    found = {one.scored.point: one.scored for one in advice.points}
    for point, features in {"bn1": first.mean((2, 3)), "head": last}.items():
        told = next(f for f in found.values() if point in (f.point, *f.also))
        wanted = features.numpy()
        assert told.log_me == pytest.approx(log_me(wanted, labels), abs=1e-4)
        assert told.h_score == pytest.approx(h_score(wanted, labels), abs=1e-3)
        assert told.h_score_shrunk == pytest.approx(h_score(wanted, labels, shrunk=True), abs=1e-4)
        assert told.probe.value == probe(wanted, labels).value
    assert advice.leep == pytest.approx(leep(own.numpy(), labels), abs=1e-5)


def test_stages_head_and_blocks_are_compared_and_one_point_with_two_names_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = advice_on(capsys)
    points = {one["freeze"]: one["also"] for one in told["points"]}
    assert points == {"stem": [], "block1": [], "stage1": ["block2"], "stage2": ["head", "block3"]}


def test_points_of_the_command_line_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    told = advice_on(capsys, "freeze.upto=stem.conv,block2.conv")
    points = {one["freeze"]: one["also"] for one in told["points"]}
    assert points["stem.conv"] == ["stem"], "its activation is computed with it"
    assert points["block2.conv"] == ["stage1", "block2"]
    assert set(points) == {"stem.conv", "block1", "block2.conv", "stage2"}


def test_the_point_of_the_recipe_is_compared(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: digits_net\nfreeze: block2.conv\ndata: {dataset: digits}\n")
    recipe, named, _ = read_points(str(path), ["data.per_class=4"])
    assert "block2.conv" in named_in(advise(recipe, named))


def test_a_stage_that_the_recipe_edits_is_left_out_and_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "narrow.yaml"
    path.write_text(
        "base: digits_net\nfreeze: stem\nresize: {block3.conv: {out: 32}}\n"
        "data: {dataset: digits, per_class: 4}\n"
    )
    assert main(["advise", str(path)]) == 0
    out = capsys.readouterr().out
    assert "left out    stage2: " in out
    assert "stage1" in out


def test_images_are_looked_at_as_they_are_however_training_changes_them(
    pictures: Path, plain: Advice
) -> None:
    changed = {"folder": str(pictures), "augment": {"train": "horizontal_flip"}}
    views = recipe_of(pictures, data=changed, features={"views": 2})
    assert advise(views, base=net()).scores() == plain.scores()


def test_so_many_images_are_drawn_class_by_class(pictures: Path) -> None:
    recipe = recipe_of(pictures)
    few = advise(recipe, base=net(), images=8)
    assert (few.images, few.total, few.classes) == (8, 16, 2)
    assert few.points[0].scored.probe.count == 8


# What it leaves behind


def advice_on(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["advise", DIGITS, *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_at_any_point_finds_its_features(tmp_path: Path, pictures: Path) -> None:
    """16 training images are hits, the 4 of validation are not: advice does not look at them."""
    recipe = recipe_of(pictures, fine_tune={"epochs": 1, "batch_size": 4})
    advice = advise(recipe, base=net())
    for point in ("bn1", "head"):
        assert point in named_in(advice)
        wanted = recipe_of(pictures, freeze=point, fine_tune={"epochs": 1, "batch_size": 4})
        told = train_recipe(wanted, tmp_path / point, base=net()).record["features"]
        assert (told["hits"], told["misses"]) == (16, 4), point


def test_what_was_computed_once_is_found_and_no_file_lies_where_one_works(
    tmp_path: Path, pictures: Path, plain: Advice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    for _ in range(2):
        again = advise(recipe_of(pictures), base=net(), say=lines.append)
        assert again.scores() == plain.scores()
    told = [line for line in lines if line.startswith("features")]
    assert "0 hits, 16 misses" in told[0]
    assert "16 hits, 0 misses" in told[1]
    assert not list(tmp_path.iterdir())


def test_without_the_store_the_scores_are_the_same(pictures: Path, plain: Advice) -> None:
    live = advise(recipe_of(pictures, features={"cache": "off"}), base=net())
    assert live.scores() == plain.scores()


def test_scores_are_told_under_every_name_of_a_point(plain: Advice) -> None:
    advice, scores = plain, plain.scores()
    assert set(scores) == {"rank", "LogME", "H-score", "probe"}
    assert all(set(by_point) == named_in(advice) for by_point in scores.values())
    best = advice.points[0].scored.point
    assert scores["rank"][best] == max(scores["rank"].values()) == 0


# What is told


def test_the_command_prints_a_table_and_the_lines_to_paste(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["advise", DIGITS, "fine_tune.epochs=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("rank"))
    for column in ("freeze point", "bytes a row", "trains", "LogME", "H-score", "probe"):
        assert column in header
    assert any(line.startswith("LEEP") for line in lines)
    assert any(line.startswith("confidence  low") for line in lines)
    place = next(i for i, line in enumerate(lines) if line.startswith("advice"))
    train, sweep = (shlex.split(line.removeprefix("advice")) for line in lines[place : place + 2])
    assert "-m" in sweep
    assert main(train[1:]) == 0  # as it stands
    assert "50 hits" in capsys.readouterr().out


def test_data_have_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    document = Path("docs/json.md").read_text(encoding="utf-8")
    section = document.split("\n## advise\n")[1].split("\n## ")[0]
    documented = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
    told = advice_on(capsys)
    point = told["points"][0]
    inner = {f"points.{key}" for key in point} | {f"points.probe.{key}" for key in point["probe"]}
    inner |= {f"confidence.{key}" for key in told["confidence"]}
    assert set(told) | inner == documented | ({"left_out"} & set(told))
    assert told["train"].startswith("tlcompile train ")


def numbers(folder: Path, task: str) -> Path:
    make_pictures(folder / "pictures", count=8, side=20)
    rows = ["image,one,two"]
    for index in range(16):
        name, ants = f"pictures/{'ants' if index % 2 else 'bees'}/{index // 2}.png", index % 2
        rows.append(f"{name},{ants},{(index // 2) % 2}")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder / "table.csv"


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_numbers_and_labels_have_log_me_and_a_probe(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"csv": str(numbers(tmp_path, task)), "target": ["one", "two"]}
    recipe = recipe_of(tmp_path, data=data, task=task)
    advice = advise(recipe, base=net())
    assert advice.classes is None
    assert advice.leep is None
    assert set(advice.scores()) == {"rank", "LogME", "probe"}
    assert all(one.scored.probe.metric == "r2" for one in advice.points)


@pytest.fixture(scope="module")
def of_digits() -> Advice:
    return advise(read_points(DIGITS, [])[0])


BASE = "base: digits_net\ndata: {dataset: digits, per_class: 4}\n"


def planned(command: str) -> int:
    """Say whether a command would be taken, by its plan."""
    words = shlex.split(command)
    return main(["plan", *words[2:]])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (BASE, "freeze.upto=stage1"),
        (f"{BASE}freeze: {{only: [stem]}}\n", "'~freeze.only' freeze.upto=stage1"),
        (
            f"{BASE}fine_tune: {{phases: [{{name: a, epochs: 1, freeze: head}}]}}\n",
            "fine_tune.phases.0.freeze=stage1",
        ),
        (f"{BASE}fine_tune: {{phases: [{{name: a, epochs: 1}}]}}\n", "freeze.upto=stage1"),
    ],
)
def test_the_line_to_paste_says_it_where_the_recipe_says_it(
    text: str, wanted: str, tmp_path: Path, of_digits: Advice
) -> None:
    path = tmp_path / "my recipe.yaml"
    path.write_text(text)
    given = ["fine_tune.optimizer={name: sgd, lr: 1e-3}", "freeze.upto=stem,head"]
    given = given if "only" not in text and "freeze: head" not in text else given[:1]
    recipe, _, others = read_points(str(path), given)
    train, sweep = commands_of(of_digits, recipe, str(path), others)
    assert train.endswith(wanted)
    assert sweep.endswith(f"-m {wanted.split()[-1]},stage2,block1")
    assert "stem" not in train, "overrides of the freeze point are not repeated"
    assert main(["plan", *shlex.split(train)[2:]]) == 0


def test_a_point_that_is_a_mapping_stays_one_below_a_phase(of_digits: Advice) -> None:
    first = of_digits.points[0]
    told = replace(first, scored=replace(first.scored, point="{stage: 1}"))
    text = f"{BASE}fine_tune: {{phases: [{{name: a, epochs: 1, freeze: head}}]}}\n"
    recipe = recipe_from(spell_out(read_recipe_text(text, "a.yaml")), (), "a")
    (train,) = commands_of(replace(of_digits, points=(told,)), recipe, "a.yaml", [])
    assert shlex.split(train)[-1] == "fine_tune.phases.0.freeze={upto: {stage: 1}}"


# What is refused


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["freeze.upto=none,stem"], "freeze point 'none' has no features to score"),
        (["freeze.upto=stem,blok1"], "blok1"),
        (["base.weights=none"], "weights"),
        (["--images", "0"], "--images 0"),
        (["--images", "5"], "look at all of them: --images 50"),
        (["fine_tune.epochs=1,2"], "several values are a sweep"),
        (["data.per_class=1"], "too few to compare freeze points by"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise", DIGITS, *words]) == 2
    assert told in capsys.readouterr().err


def test_a_line_that_is_wrong_at_every_point_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["advise", DIGITS, "fine_tune.monitor=val/iou", "freeze.upto=stem,head"]) == 2
    assert capsys.readouterr().err.count("val/iou") == 2  # in its headline and as what was found


def test_a_wrong_point_is_told_at_its_place_on_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["advise", DIGITS, "freeze.upto=stem,none"]) == 2
    assert capsys.readouterr().err.startswith("command line:1:")


def test_segmentation_and_several_outputs_are_refused(pictures: Path) -> None:
    recipe = recipe_of(pictures, task="segmentation")
    with pytest.raises(NoAdviceForTaskError, match="segmentation"):
        advise(recipe, base=net())
    heads = {"one": {"task": "classification"}, "two": {"task": "regression"}}
    several = make_recipe(
        data={"csv": "table.csv"},
        task=heads,
        add={n: {"layer": "linear", "out": 2, "inputs": "flatten"} for n in heads},
        remove={"fc": "drop"},
        outputs=list(heads),
    )
    with pytest.raises(NoAdviceForTaskError, match="several outputs"):
        advise(several)


def test_a_class_with_one_image_is_refused(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "few", classes=("ants", "bees"), count=4)
    for number in (1, 2, 3):
        (root / "ants" / f"{number}.png").unlink()
    with pytest.raises(TooFewToCompareError, match="ants 1"):
        advise(recipe_of(root), base=net())


def test_numbers_that_are_all_alike_are_refused(tmp_path: Path) -> None:
    table = numbers(tmp_path, "regression")
    table.write_text(table.read_text().replace(",1,", ",0,"))
    data = {"csv": str(table), "target": ["one"]}
    with pytest.raises(TooFewToCompareError, match="one 1"):
        advise(recipe_of(tmp_path, data=data, task="regression"), base=net())


def test_every_damaged_image_is_named(tmp_path: Path) -> None:
    """Of five ants, two at most are set aside for validation, which is not looked at."""
    root = make_pictures(tmp_path / "bad", count=10)
    bad = [f"ants/{number}.png" for number in range(5)]
    for name in bad:
        (root / name).write_bytes(b"no image")
    with pytest.raises(UnreadableImagesError) as refused:
        advise(recipe_of(root), base=net())
    assert len(refused.value.images) >= 3


# One vector an image


def test_maps_are_averaged_over_their_places_whatever_their_layout() -> None:
    maps = torch.randn(3, 5, 4, 4)
    wanted = maps.double().mean((2, 3))
    assert torch.allclose(pooled(maps), wanted)
    assert torch.allclose(pooled(maps.permute(0, 2, 3, 1)), wanted)
    assert torch.equal(pooled(maps[:, :, 0, 0]), maps[:, :, 0, 0].double())
    tokens = maps.flatten(2).transpose(1, 2)
    assert torch.allclose(pooled(tokens), wanted)
    assert pooled(torch.ones(3)).shape == (3, 1)
    assert pooled(maps.half()).dtype == torch.float64


def test_a_map_of_400_000_numbers_is_its_channels(pictures: Path) -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1563, 1)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(1563, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.fc(torch.sigmoid(self.pool(torch.relu(self.conv(x)))).flatten(1))
            return found

    recipe = recipe_of(pictures, freeze="conv")
    torch.manual_seed(0)
    advice = advise(recipe, [recipe], base=Wide())
    assert {one.scored.width for one in advice.points} == {1563}
    assert replace(advice, seconds=0.0).images == 16
