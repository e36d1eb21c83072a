"""A run goes on where everything is equal that decides its result; else the difference is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_pictures, make_recipe

from tlcompile.errors.resume import OtherRunError
from tlcompile.recipe.run import Run
from tlcompile.recipe.schema import Recipe
from tlcompile.run.fingerprint import DECIDES_BITS, fingerprint_of, refuse_other
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
