"""`predict --out` writes new files alone: a table or a mask that is there stays as it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tlcompile.errors.finding import FileExistsAlreadyError
from tlcompile.run import predict


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three images, two of one name; and a world in which nothing is predicted."""
    monkeypatch.chdir(tmp_path)
    names = ["photos/a.png", "photos/b/a.png", "photos/b/a-2.png"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name)

    def predicted(*_given: object, **_named: object) -> dict[str, Tensor]:
        raise AssertionError("refused before anything is predicted")

    monkeypatch.setattr(predict, "find_run", Path)
    monkeypatch.setattr(predict, "load_bundle", lambda _folder: None)
    monkeypatch.setattr(predict, "predict_images", predicted)
    return names


def options(images: list[str], out: str) -> argparse.Namespace:
    return argparse.Namespace(run="run", images=images, out=out, json=False, workers=0)


def of_task(monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    goals = {"": SimpleNamespace(task=task)}
    monkeypatch.setattr(predict, "objective_of_bundle", lambda _b: SimpleNamespace(goals=goals))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_file_that_is_there_is_kept(
    images: list[str], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_task(monkeypatch, task)
    Path("recipe.yaml").write_text("base: digits_net\n")
    with pytest.raises(FileExistsAlreadyError) as caught:
        predict.run(options(images, "recipe.yaml"))
    assert "'recipe.yaml' exists already" in str(caught.value)
    assert "nothing was overwritten" in str(caught.value)
    assert Path("recipe.yaml").read_text() == "base: digits_net\n"


def test_a_mask_that_is_there_is_kept_and_none_is_written(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_task(monkeypatch, "segmentation")
    Path("masks").mkdir()
    Path("masks/a-2.png").write_bytes(b"made by hand")
    with pytest.raises(FileExistsAlreadyError, match=r"masks/a-2\.png"):
        predict.run(options(images, "masks"))
    assert [path.read_bytes() for path in Path("masks").iterdir()] == [b"made by hand"]


def test_every_image_gets_a_mask_of_its_own(
    images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_task(monkeypatch, "segmentation")
    maps = torch.stack([torch.full((4, 4), value, dtype=torch.uint8) for value in (1, 2, 3)])
    monkeypatch.setattr(predict, "predict_images", lambda *_given, **_named: {"": maps})
    monkeypatch.setattr(predict, "_show", lambda *_given: None)
    assert predict.run(options(images, "masks")) == 0
    written = {path.name: int(np.array(Image.open(path))[0, 0]) for path in Path("masks").iterdir()}
    assert written == {"a.png": 1, "a-2.png": 2, "a-2-2.png": 3}
