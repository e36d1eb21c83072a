"""Random changes without effect or meaning are refused by `check`, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from run.refusals import check_place
from tlcompile.compiler import prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.load import load_recipe
from tlcompile.run.refuse_augment import augmentation_problems

GREY = "base: digits_net\n"
LIVE = "features: {cache: off}\n"
REFUSED = [
    ("data:\n  augment: {train: [rotation, grayscale]}\n" + LIVE, (3, 31), "no-effect"),
    ("data: {augment: {val: [channel_permutation]}}\n", (2, 24), "no-effect"),
    (
        "data: {augment: {val: [{color_jitter: {brightness: 0, contrast: 0}}]}}\n",
        (2, 24),
        "no-effect",
    ),
    (
        "data: {augment: {train: [{horizontal_flip: {p: 0.3}}]}}\nfeatures: {views: 2}\n",
        (2, 26),
        "no-effect",
    ),
    ("data: {augment: {train: [rand_augment]}}\n", (2, 25), "augmented-features"),
    ("data: {augment: {val: [rand_augment]}}\ntask: segmentation\n", (2, 24), "unknown-mask"),
    ("data: {mix: {mixup: 0.2}}\n", (2, 13), "mixed-features"),
    (
        "data: {mix: {cutmix: 1.0}, augment: {train: rotation}}\nfeatures: {views: 3}\n",
        (2, 13),
        "mixed-features",
    ),
    ("data: {mix: {mixup: 0.2}}\ntask: segmentation\nfreeze: none\n", (2, 21), "unmixable"),
    ("data: {mix: {cutmix: 1.0}}\ntask: segmentation\nfreeze: none\n", (2, 22), "unmixable"),
    ("features: {augment: {mixup: 0.2}}\ntask: segmentation\n", (2, 29), "unmixable"),
    ("data: {mix: {cutmix: 1.0}}\ntask: regression\nfreeze: none\n", (2, 22), "unmixable"),
]
FINE = [
    "data: {augment: {train: [rotation, trivial_augment]}}\n" + LIVE,
    "data: {augment: {train: [horizontal_flip]}}\nfeatures: {views: 2}\n",
    "data: {augment: {train: [{horizontal_flip: {p: 0.3}}, rotation]}}\nfeatures: {views: 5}\n",
    "data: {augment: {val: [{affine: {degrees: 9}}, zoom_out]}}\ntask: segmentation\n",
    "data: {mix: {mixup: 0.2, cutmix: 1}}\n" + LIVE,
    "data: {mix: {mixup: 0.2, cutmix: 1}}\nfreeze: none\n",
    "data: {mix: {mixup: 0.2}}\ntask: regression\nfreeze: none\n",
    "features: {augment: {mixup: 0.2}}\n",
    "features: {augment: {mixup: 0.2}, views: 2}\ndata: {augment: {train: [vertical_flip]}}\n",
]


def problems(tmp_path: Path, text: str, base: str = GREY) -> list[TLCompileError]:
    path = tmp_path / "recipe.yaml"
    path.write_text(base + text, encoding="utf-8")
    recipe = load_recipe(path)
    model = prove_recipe(recipe, num_classes=5)
    return [error.at(recipe.where(error.key)) for error in augmentation_problems(recipe, model)]


@pytest.mark.parametrize(("text", "place", "slug"), REFUSED)
def test_refusal_has_its_place(
    tmp_path: Path, text: str, place: tuple[int, int], slug: str
) -> None:
    (error,) = problems(tmp_path, text)
    check_place(error, place, slug)


@pytest.mark.parametrize("text", FINE)
def test_what_has_an_effect_is_not_refused(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_colours_are_changed_where_there_are_some(tmp_path: Path) -> None:
    text = "data: {augment: {train: [grayscale, channel_permutation]}}\n"
    base = "base: {model: squeezenet1_1, weights: none}\nhead: auto\nfreeze: none\n"
    assert problems(tmp_path, text, base) == []


def test_images_that_are_mixed_before_kept_features_have_two_ways_out(tmp_path: Path) -> None:
    (error,) = problems(tmp_path, "data: {mix: {mixup: 0.4}}\n")
    assert "features: {augment: {mixup: 0.4}}" in error.fix()
    assert "features: {cache: off}" in error.fix()
