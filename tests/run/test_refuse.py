"""What compiles and cannot be trained as written is refused by `check`, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_recipe

from run.refusals import BASE, check_place, refusal
from tlcompile.compiler import prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.graph import NotYetError
from tlcompile.errors.training import WrongTaskError
from tlcompile.recipe.load import load_recipe
from tlcompile.run.refuse import refuse_other_data, refuse_untrainable

HEADS = (
    "add:\n"
    "  a: {layer: linear, out: 3, inputs: flatten}\n"
    "  b: {layer: linear, out: classes, inputs: flatten}\n"
)
CASES = [
    ("freeze: all\nhead: keep\n", 2, 9, "nothing-trains"),
    (f"{HEADS}outputs: [a, b]\n", 5, 10, "not-yet"),
    (f"{HEADS}outputs: [a]\n", 4, 6, "no-effect"),
    ("add: {a: {layer: linear, out: 3, inputs: flatten}}\noutputs: [a]\n", 2, 10, "wrong-width"),
    ("freeze: none\nfeatures: {cache: off}\n", 3, 19, "no-effect"),
    ("data: {augment: {train: [horizontal_flip]}}\n", 2, 25, "augmented-features"),
    ("freeze: none\nfeatures: {precision: fast}\n", 3, 23, "no-effect"),
    ("freeze: none\nfeatures: {augment: {noise: 0.1}}\n", 3, 21, "no-effect"),
    (
        "data: {augment: {train: [horizontal_flip]}}\nfeatures: {views: 3}\n",
        3,
        19,
        "view-count",
    ),
]


@pytest.mark.parametrize(("text", "line", "column", "slug"), CASES)
def test_refusal_has_its_place(
    tmp_path: Path, text: str, line: int, column: int, slug: str
) -> None:
    check_place(refusal(tmp_path, text), (line, column), slug)


def test_idle_line_is_allowed_at_a_point_of_a_sweep(tmp_path: Path) -> None:
    text = "freeze: none\nfeatures: {cache: off}\n"
    assert refusal(tmp_path, text, swept=True) is None


def test_a_plain_recipe_is_not_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "freeze: block1\n") is None


def test_auxiliary_heads_are_refused_where_they_would_train(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("base: {model: googlenet, weights: none}\nhead: keep\nfreeze: none\n")
    recipe = load_recipe(path)
    with pytest.raises(TLCompileError) as caught:
        refuse_untrainable(recipe, prove_recipe(recipe), None)
    assert caught.value.slug == "not-yet"


MISFITS = [
    ("remove: {block3: drop, block3.conv: drop}\n", 2, 37, "no-effect"),
    ("freeze: {upto: none, only: [block3]}\nremove: {block3: bypass}\n", 2, 29, "no-effect"),
]


@pytest.mark.parametrize(("text", "line", "column", "slug"), MISFITS)
def test_lines_that_take_each_other_away(
    tmp_path: Path, text: str, line: int, column: int, slug: str
) -> None:
    error = refusal(tmp_path, text)
    members = getattr(error, "errors", (error,))
    assert slug in {member.slug for member in members}
    (found,) = [member for member in members if member.slug == slug]
    assert found.where is not None
    assert (found.where.line, found.where.column) == (line, column)


@pytest.mark.parametrize("folder", ["/tmp/elsewhere", "../up", "a/../../b"])
def test_a_recipe_writes_below_the_current_folder_alone(tmp_path: Path, folder: str) -> None:
    error = refusal(tmp_path, f"run: {{output_dir: {folder}}}\n")
    assert error is not None
    assert (error.slug, error.exit_code) == ("bad-value", 2)


def test_the_command_line_may_name_any_folder(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE, encoding="utf-8")
    recipe = load_recipe(path, ["output_dir=/tmp/elsewhere"])
    assert recipe.run.output_dir == "/tmp/elsewhere"


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("r3d_18", "clips"),
        ("ssd300_vgg16", "boxes"),
    ],
)
def test_bases_that_want_other_data_are_refused_by_name(model: str, word: str) -> None:
    with pytest.raises(NotYetError, match=f"'{model}'.*{word}"):
        refuse_other_data(make_recipe(base={"model": model}))


def test_a_base_for_masks_wants_its_task() -> None:
    with pytest.raises(WrongTaskError, match="a class for each pixel"):
        refuse_other_data(make_recipe(base={"model": "fcn_resnet50"}))
    refuse_other_data(make_recipe(base={"model": "fcn_resnet50"}, task="segmentation"))


def test_classification_models_are_not_refused() -> None:
    refuse_other_data(make_recipe(base={"model": "resnet18"}))
