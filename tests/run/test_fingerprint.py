"""A run goes on where everything is equal that decides its result; else the difference is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_pictures, make_recipe
from torch import Tensor, nn

from tlcompile.errors.resume import OtherRunError
from tlcompile.recipe.layers.base import Layer
from tlcompile.recipe.layers.plugins import Plugin
from tlcompile.recipe.run import Run
from tlcompile.recipe.schema import Recipe
from tlcompile.run import fingerprint
from tlcompile.run.fingerprint import DECIDES_BITS, fingerprint_of, refuse_other
from tlcompile.run.opening import conditions_of, open_run
from tlcompile.run.splits import open_splits

CPU = torch.device("cpu")
# Keys of `run` that decide no bit of a result.
FREE = {
    "device",  # told by the arithmetic, as `auto` is
    "devices",  # told as their number
    "workers", "output_dir", "cache", "cache_budget", "checkpoint_seconds", "track",
}  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "images")


def recipe_of(images: Path, **sections: Any) -> Recipe:
    return make_recipe(data={"folder": str(images)}, **sections)


def printed(recipe: Recipe, weights: str = "0a", devices: int = 1) -> dict[str, Any]:
    splits = open_splits(recipe, 3, lambda _line: None)
    return fingerprint_of(recipe, {"sha256": weights}, splits, CPU, devices)


def test_the_same_run_goes_on(images: Path) -> None:
    one, other = (printed(recipe_of(images)) for _ in range(2))
    refuse_other(one, other, Path("runs/a"))


def test_where_it_writes_and_how_many_threads_decode_decide_nothing(images: Path) -> None:
    run = {"workers": 0, "output_dir": "elsewhere", "cache": "there", "checkpoint_seconds": 7}
    refuse_other(printed(recipe_of(images)), printed(recipe_of(images, run=run)), Path("a"))


def test_every_key_of_run_is_one_that_decides_bits_or_one_that_does_not() -> None:
    assert not FREE & set(DECIDES_BITS)
    assert set(Run.model_fields) <= FREE | set(DECIDES_BITS)


def refused(saved: dict[str, Any], now: dict[str, Any], *, inexact: bool = False) -> OtherRunError:
    with pytest.raises(OtherRunError) as caught:
        refuse_other(saved, now, Path("runs/flowers"), inexact=inexact)
    return caught.value


def test_another_recipe_other_weights_images_or_devices_are_refused_for_good(images: Path) -> None:
    saved = printed(recipe_of(images))
    others = {
        "recipe": printed(recipe_of(images, fine_tune={"epochs": 3})),
        "weights": printed(recipe_of(images), weights="0b"),
        "devices": printed(recipe_of(images), devices=2),
    }
    (images / "ants" / "0.png").rename(images / "ants" / "9.png")
    others["images train"] = printed(recipe_of(images))
    for name, now in others.items():
        for inexact in (False, True):
            error = refused(saved, now, inexact=inexact)
            assert error.differences[0].startswith(f"{name}: "), name
            assert "--inexact" not in error.fix()
            assert "--again" in error.fix()


def test_a_plug_in_and_timm_of_another_version_compute_something_else(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = printed(recipe_of(images))
    plugin = Plugin("blur", "tl-blur", "1.2", Layer)
    monkeypatch.setattr(fingerprint, "allowed_plugins", lambda: {"blur": plugin})
    error = refused(saved, printed(recipe_of(images)))
    assert error.differences == ("packages tl-blur: none, now 1.2",)
    monkeypatch.setattr(fingerprint.importlib.metadata, "version", lambda name: f"{name} 3")
    base, recipe = {"sha256": "0a", "model": "timm/resnet10t"}, recipe_of(images)
    found = fingerprint.fingerprint_of(recipe, base, open_splits(recipe, 3, str), CPU)
    assert found["packages"] == {"tl-blur": "1.2", "timm": "timm 3"}


class Maps(nn.Module):
    """One convolution, a map a class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_what_a_mask_holds_is_a_part_of_the_run(tmp_path: Path) -> None:
    """A mask that was drawn anew under its old name let a stopped run go on, half on either."""
    for name in "abcd":
        for folder, value in (("images", 9), ("masks", 1)):
            (tmp_path / folder).mkdir(exist_ok=True)
            pixels = np.full((8, 8, 3) if folder == "images" else (8, 8), value, np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    recipe = make_recipe(
        base={"model": "digits_net", "size": 8},
        freeze="none",
        head="keep",
        task="segmentation",
        data={"folder": str(tmp_path)},
    )

    def conditions() -> dict[str, Any]:
        torch.manual_seed(0)
        return conditions_of(open_run(recipe, tmp_path / "run", base=Maps()))

    saved = conditions()
    refuse_other(saved, conditions(), Path("runs/a"))
    for name in "abcd":
        pixels = np.eye(8, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "masks" / f"{name}.png")
    error = refused(saved, conditions())
    places = [one.partition(":")[0] for one in error.differences]
    assert places == ["contents masks of train", "contents masks of val"]


def test_another_thread_count_is_refused_with_both_numbers(images: Path) -> None:
    """Threads decide last bits: a node with more cores is no reason to start over, nor a secret."""
    saved, now = printed(recipe_of(images)), printed(recipe_of(images))
    now["arithmetic"]["device"]["threads"] = 64
    error = refused(saved, now)
    assert error.differences == (f"arithmetic device threads: {torch.get_num_threads()}, now 64",)
    assert "--inexact" in error.fix()


@pytest.mark.parametrize("key", DECIDES_BITS)
def test_what_decides_last_bits_alone_can_be_accepted_and_is_said(images: Path, key: str) -> None:
    if key not in Run.model_fields:
        pytest.skip(f"run.{key} is not built yet")
    saved, now = printed(recipe_of(images)), printed(recipe_of(images))
    now["run"][key] = "other"
    lines: list[str] = []
    refused(saved, now)
    refuse_other(saved, now, Path("a"), inexact=True, say=lines.append)
    assert f"run {key}: " in lines[0]
    assert "now other" in lines[0]


def test_what_only_one_side_knows_is_a_difference_too(images: Path) -> None:
    saved, now = printed(recipe_of(images)), printed(recipe_of(images))
    del now["arithmetic"]["torch"]
    assert refused(saved, now).differences == (f"arithmetic torch: {torch.__version__}, now none",)
