"""What a run's page shows of single validation images, for every task."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tlcompile.report.run_page import run_page
from tlcompile.run.cli import main
from tlcompile.run.report_run import run_data
from tlcompile.run.report_samples import NOTHING, PALETTE, Worst, coloured, how_wrong
from tlcompile.training.goal import Goal, Scale

HEAD = "base: {model: digits_net, weights: none}\nfreeze: none\nfine_tune: {epochs: 1, batch_size: 8}\n"
EVIL = "<script>errors.push(1)</script>"
ODD = "a'b&c"


def goal(task: str, classes: tuple[str, ...], scale: Scale | None = None) -> Goal:
    return Goal(task=task, classes=classes, loss=lambda *_: torch.tensor(0.0), scale=scale)


def worst_of(one: Goal, outputs: Tensor, targets: Tensor) -> Worst:
    """Give it its samples in two batches."""
    found = Worst(one)
    found.add(outputs[:2], targets[:2])
    found.add(outputs[2:], targets[2:])
    return found


def test_the_surest_of_the_wrong_come_first() -> None:
    logits = torch.tensor([[2.0, 0], [5, 0], [1, 0], [3, 0]])
    found = worst_of(goal("classification", ("a", "b")), logits, torch.tensor([1, 0, 1, 1]))
    assert [index for _, index, *_ in found.kept] == [3, 0, 2]
    assert (found.total, found.count) == (3, 4)
    assert found.kept[0][0] == pytest.approx(float(torch.sigmoid(torch.tensor(3.0))))


def test_of_labels_the_most_wrong_one_counts() -> None:
    logits = torch.tensor([[4.0, -4], [4, 4], [-1, -4], [-9, -9]])
    targets = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 0]])
    found = worst_of(goal("multilabel", ("a", "b")), logits, targets)
    assert [index for _, index, *_ in found.kept] == [1, 2]


def test_numbers_are_compared_in_their_standard_deviations() -> None:
    scale = Scale(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 100.0]))
    outputs = torch.tensor([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])  # in standard deviations
    found = worst_of(goal("regression", ("m", "g"), scale), outputs, torch.zeros(3, 2))
    assert [(round(how, 6), index) for how, index, *_ in found.kept] == [(1.0, 0), (0.5, 1)]
    assert torch.equal(torch.cat([said for _, said in found.numbers])[1], torch.tensor([0.0, 50.0]))


def test_a_pixel_that_counts_for_nothing_is_never_wrong() -> None:
    masks = torch.tensor([[[0, 255], [1, 1]], [[255, 255], [255, 255]]])
    said = torch.tensor([[[0, 1], [1, 0]], [[0, 0], [1, 1]]], dtype=torch.uint8)
    assert how_wrong(goal("segmentation", ("a", "b")), said, masks).tolist() == pytest.approx(
        [1 / 3, 0]
    )


def test_a_mask_has_the_colours_of_its_classes() -> None:
    table = [*PALETTE[:2], *["#ffffff"] * 253, NOTHING]
    uri = coloured(torch.tensor([[0, 1], [255, 0]]), table)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    assert np.array(image).tolist() == [[[0, 0, 0], [230, 159, 0]], [[153, 153, 153], [0, 0, 0]]]
    large = Image.open(
        io.BytesIO(base64.b64decode(coloured(torch.zeros(600, 300), table).partition(",")[2]))
    )
    assert large.size == (96, 192)


def pictures(root: Path, count: int = 24) -> list[np.ndarray]:
    """Write small grey pictures; file names that try to leave their places."""
    random = np.random.default_rng(0)
    drawn = [random.integers(0, 255, (8, 8)).astype(np.uint8) for _ in range(count)]
    root.mkdir(parents=True)
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).save(root / f"{ODD}{number}.png")
    return drawn


def page_of(text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, str]:
    monkeypatch.chdir(place)
    Path("task.yaml").write_text(f"name: task\n{text}{HEAD}")
    assert main(["train", "task.yaml"]) == 0
    (folder,) = Path("runs").glob("task-*")
    data = run_data(folder, workers=0)
    return data, run_page(data)


def csv_of(root: Path, columns: str, row: object) -> None:
    drawn = pictures(root)
    lines = [f"{ODD}{i}.png,{row(i, pixels)}" for i, pixels in enumerate(drawn)]  # type: ignore[operator]
    (root / "images.csv").write_text("\n".join([columns, *lines]) + "\n")


def test_numbers_have_a_chart_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_of(tmp_path / "im", f'image,ink,"{EVIL}"', lambda i, pixels: f"{pixels.mean():.2f},{i}")
    task = f"task: regression\ndata: {{csv: im/images.csv, target: [ink, '{EVIL}']}}\n"
    data, page = page_of(task, tmp_path, monkeypatch)
    (found,) = data.predicted  # type: ignore[attr-defined]
    val = next(score for score in data.scores if score.split == "val")  # type: ignore[attr-defined]
    assert [one.name for one in found.scatters] == ["ink", EVIL]
    mean = sum(one.error for one in found.scatters) / 2
    assert mean == pytest.approx(val.values["mae"], rel=1e-4), "as training has measured it"
    assert len(found.scatters[0].points) == found.scatters[0].count == val.count
    assert len(found.tiles) == val.count < 24
    assert EVIL not in page
    assert "numbers" in dict(data.facts)  # type: ignore[attr-defined]


def test_labels_have_their_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_of(tmp_path / "im", "image,label", lambda i, _pixels: EVIL if i % 2 else f"{EVIL};even")
    _, page = page_of("task: multilabel\ndata: {csv: im/images.csv}\n", tmp_path, monkeypatch)
    assert "have a wrong label" in page or "has a wrong label" in page
    assert EVIL not in page
    assert "a&#x27;b&amp;c" in page


def test_each_of_several_outputs_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv_of(tmp_path / "im", "image,kind,size", lambda i, pixels: f"{'xyz'[i % 3]},{pixels.max()}")
    task = (
        "remove: {fc: drop}\nadd:\n  kind: {layer: linear, out: 3, inputs: flatten}\n"
        "  size: {layer: linear, out: 1, inputs: flatten}\noutputs: [kind, size]\n"
        "task: {kind: {task: classification}, size: {task: regression}}\n"
        "data: {csv: im/images.csv}\n"
    )
    data, page = page_of(task, tmp_path, monkeypatch)
    assert [one.title for one in data.predicted] == ["Mistakes: kind", "Numbers: size"]  # type: ignore[attr-defined]
    assert dict(data.facts)["task"] == "kind: classification, size: regression"  # type: ignore[attr-defined]
    for title in ("kind/accuracy", "size/mae"):
        assert f">{title}</text>" in page


def test_masks_are_shown_beside_what_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = pictures(tmp_path / "data" / "images")
    (tmp_path / "data" / "masks").mkdir()
    for number, pixels in enumerate(drawn):
        mask = (pixels > 128).astype(np.uint8)
        mask[0] = 255
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{ODD}{number}.png")
    (tmp_path / "data" / "classes.txt").write_text(f"ground\n{EVIL}\n")
    task = (
        "remove: {stem.relu: drop, block1: drop, block2: drop, block3: drop, flatten: drop, fc: drop}\n"
        "add:\n  out: {layer: conv2d, kernel: 1, out: classes, inputs: stem.conv}\n"
        "outputs: [out]\ntask: segmentation\ndata: {folder: data}\n"
    )
    data, page = page_of(task, tmp_path, monkeypatch)
    (found,) = data.predicted  # type: ignore[attr-defined]
    assert 0 < len(found.tiles) <= 8
    assert all(len(tile.images) == 3 for tile in found.tiles)
    assert {name for name, _ in found.colours} == {"ground", EVIL, "counts for nothing"}
    assert EVIL not in page
    iou = next(score for score in data.scores if score.split == "val").values["iou"]  # type: ignore[attr-defined]
    shown = [row.f1 / (2 - row.f1) for row in data.outputs[0].classes if row.f1 is not None]  # type: ignore[attr-defined]
    assert sum(shown) / 2 == pytest.approx(iou, abs=1e-4), (
        "the mean over classes, as torchmetrics has it"
    )
