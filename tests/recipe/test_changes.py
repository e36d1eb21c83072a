"""The list of random changes: names, parameters, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.image_changes import RandomResizedCrop, RandomRotation
from tlcompile.recipe.json_schema import schema_text
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.schema import Recipe

LIST = "[random_resized_crop, {rotation: {degrees: 30}}]"


def read(tmp_path: Path, train: str, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    text = f"base: digits_net\ndata:\n  augment:\n    train: {train}\n"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


def test_names_and_parameters(tmp_path: Path) -> None:
    wanted = (RandomResizedCrop(), RandomRotation(degrees=30))
    assert read(tmp_path, LIST).data.augment.on_train == wanted
    assert read(tmp_path, "rotation").data.augment.on_train == (RandomRotation(),)
    assert read(tmp_path, "{rotation: {}}").data.augment.on_train == (RandomRotation(),)
    given = read(tmp_path, "[]", "data.augment.val=[{rotation: {degrees: 30}}]")
    assert given.data.augment.on_val == wanted[1:]


def test_what_is_written_again_is_the_same(tmp_path: Path) -> None:
    recipe = read(tmp_path, LIST)
    written = recipe.model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(written), encoding="utf-8")
    assert load_recipe(path).data == recipe.data


WRONG = [
    ("[rotation, rotatoin]", (4, 23), "bad-choice", "did you mean 'rotation'?"),
    ("[{rotatoin: {}}]", (4, 14), "unknown-key", "did you mean 'rotation'?"),
    ("[{rotation: {degreees: 3}}]", (4, 25), "unknown-key", "did you mean 'degrees'?"),
    ("[{rotation: {degrees: 300}}]", (4, 34), "bad-value", "at most 180"),
    ("[{rotation: {degrees: 0}}]", (4, 34), "bad-value", "above 0"),
    ("[{horizontal_flip: {p: 0}}]", (4, 35), "bad-value", "above 0"),
    ("[{rotation: 30}]", (4, 24), "bad-value", "mapping"),
    ("[{rotation: {}, invert: {}}]", (4, 13), "bad-rule", "write a list: [invert, rotation]"),
    ("[rotation, {rotation: {degrees: 3}}]", (4, 12), "bad-rule", "keep one"),
    ("[affine]", (4, 13), "bad-rule", "write {affine: {degrees: 15"),
    ("[{affine: {translate: [0, 0]}}]", (4, 22), "bad-rule", "write {affine: {degrees: 15"),
    ("[{random_erasing: {scale: [0.5, 0.2]}}]", (4, 38), "bad-rule", "write [0.2, 0.5]"),
    ("[{gaussian_blur: {kernel_size: 8}}]", (4, 29), "bad-rule", "write kernel_size: 9"),
    ("[{sharpness: {sharpness_factor: 1}}]", (4, 25), "bad-rule", "sharpness_factor: 2"),
    ("[{rand_augment: {magnitude: 31}}]", (4, 28), "bad-rule", "write magnitude: 30"),
    ("[{random_crop: {fill: 3, padding_mode: edge}}]", (4, 27), "bad-rule", "drop one"),
    ("[{color_jitter: {brightness: 0, contrast: 0, saturation: 0}}]", (4, 28), "bad-rule", "drop"),
    ("[{random_resized_crop: {scale: [0, 0]}}]", (4, 35), "bad-rule", "write scale"),
    ("[{auto_augment: {policy: imagnet}}]", (4, 37), "bad-choice", "did you mean 'imagenet'?"),
    ("[os.system]", (4, 13), "bad-choice", "write one of"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "place", "slug", "says"), WRONG)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, train: str, place: tuple[int, int], slug: str, says: str
) -> None:
    with pytest.raises(TLCompileError) as caught:
        read(tmp_path, train)
    error: Any = caught.value
    assert (error.slug, says in str(error)) == (slug, True), str(error)
    assert (error.where.line, error.where.column) == place


def test_mix_without_a_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TLCompileError, match="mix needs mixup, cutmix or both"):
        read(tmp_path, "[]", "data.mix={}")


@pytest.mark.parametrize("alpha", [0, -1, 101])
def test_mix_wants_an_alpha_above_0(tmp_path: Path, alpha: float) -> None:
    with pytest.raises(TLCompileError) as caught:
        read(tmp_path, "[]", f"data.mix.mixup={alpha}")
    assert caught.value.slug == "bad-value"


@pytest.mark.parametrize(
    ("train", "fine"),
    [
        (["rotation", {"rotation": {"degrees": 3}}], True),
        ("rotation", True),
        ({"rand_augment": {"num_ops": 2}}, True),
        (["rotatoin"], False),
        ([{"rotation": {"degreees": 3}}], False),
    ],
)
def test_editors_know_the_list(train: Any, fine: bool) -> None:
    data = {"base": "digits_net", "data": {"augment": {"train": train}}}
    assert Draft202012Validator(json.loads(schema_text())).is_valid(data) == fine
