"""Pydantic's findings as errors with places: one for each wrong line, in file order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_recipe

from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.schema import BadValueError
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.problems import keys_at, paths_of


def refused(tmp_path: Path, text: str) -> list[TLCompileError]:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(TLCompileError) as caught:
        load_recipe(path)
    error = caught.value
    return list(error.errors) if isinstance(error, Problems) else [error]


TABLE = {
    "unknown section": ("base: a\nfreez: b", "2:1", "unknown-key", "did you mean 'freeze'"),
    "unknown key": (
        "base: a\nfine_tune: {epoch: 3}",
        "2:13",
        "unknown-key",
        "did you mean 'epochs'",
    ),
    "key of elsewhere": (
        "base: a\npatience: 3",
        "2:1",
        "unknown-key",
        "fine_tune.early_stop.patience",
    ),
    "option of another optimizer": (
        "base: a\nfine_tune: {optimizer: {name: adam, momentum: 0.9}}",
        "2:37",
        "unknown-key",
        "betas",
    ),
    "no base": ("freeze: a", "1:1", "missing-key", "needs the key 'base'"),
    "no layer kind": ("base: a\nadd: {x: {out: 3}}", "2:", "missing-key", "layer"),
    "no width": ("base: a\nadd: {x: {layer: linear, inputs: y}}", "2:", "missing-key", "out"),
    "unknown layer": (
        "base: a\nadd: {x: {layer: liner, out: 3, inputs: y}}",
        "2:",
        "bad-choice",
        "did you mean 'linear'",
    ),
    "unknown optimizer": (
        "base: a\nfine_tune: {optimizer: adamm}",
        "2:",
        "bad-choice",
        "did you mean 'adam'",
    ),
    "unknown task": ("base: a\ntask: classify", "2:7", "bad-choice", "classification"),
    "text for a number": (
        "base: a\nfine_tune: {epochs: ten}",
        "2:21",
        "bad-value",
        "a whole number",
    ),
    "fraction for a whole number": (
        "base: a\nfine_tune: {epochs: 1.5}",
        "2:21",
        "bad-value",
        "whole number|integer",
    ),
    "out of range": ("base: a\ndata: {split: {val: 1.5}}", "2:21", "bad-value", "below 1"),
    "zero rate": ("base: a\nfine_tune: {optimizer: {lr: 0}}", "2:29", "bad-value", "above 0"),
    "stage five": ("base: a\nfreeze: {upto: {stage: 5}}", "2:24", "bad-value", "at most 4"),
    "two bases": ("base: {model: a, run: b}", "1:", "bad-rule", "exactly one of model and run"),
    "two sources": ("base: a\ndata: {folder: x, dataset: digits}", "2:", "bad-rule", "drop one"),
    "nesterov alone": (
        "base: a\nfine_tune: {optimizer: {name: sgd, nesterov: true}}",
        "2:",
        "bad-rule",
        "momentum",
    ),
    "list for a section": ("base: a\nrun: [1]", "2:6", "bad-value", "a mapping"),
    "bad name": ("base: a\nname: ../x", "2:7", "bad-value", "name"),
}


@pytest.mark.parametrize("name", TABLE)
def test_one_wrong_line_is_one_error(tmp_path: Path, name: str) -> None:
    import re

    text, place, slug, says = TABLE[name]
    errors = refused(tmp_path, text)
    assert len(errors) == 1, [str(error) for error in errors]
    told = str(errors[0])
    assert f"r.yaml:{place}" in told, told
    assert errors[0].slug == slug, told
    assert re.search(says, " ".join(told.split())), told
    assert "  fix " in told


def test_all_problems_come_together_in_file_order(tmp_path: Path) -> None:
    text = "base: {modle: a}\nfreez: x\nfine_tune:\n  epochs: -1\n  seed: x\n"
    lines = [error.where.line for error in refused(tmp_path, text) if error.where]
    assert lines == sorted(lines)
    assert set(lines) >= {1, 2, 4, 5}


def test_keys_of_sections() -> None:
    assert "upto" in keys_at(("freeze",))
    assert "momentum" in keys_at(("fine_tune", "optimizer", "sgd"))
    assert "momentum" not in keys_at(("fine_tune", "optimizer", "adamw"))
    assert "data.split.val" in paths_of("val")


@pytest.mark.parametrize(
    ("section", "value", "fix"),
    [
        ("fine_tune", {"phases": [{"name": "a", "until": 5}]}, "write until: {plateau: 5}"),
        ("fine_tune", {"phases": [{"name": "a", "until": "plateau"}]}, "write until: {plateau: 5}"),
        ("fine_tune", {"average": 0.9}, "write average: {ema: 0.9}"),
        ("fine_tune", {"average": "swa"}, "give fine_tune.average a mapping {key: value}"),
        ("task", {"a": "classification"}, "write a: {task: classification}"),
        ("data", {"mix": 0.2}, "write mix: {mixup: 0.2}"),
        ("features", False, "give features a mapping {key: value}"),
    ],
)
def test_a_value_in_the_place_of_a_section_is_told_what_to_write(
    section: str, value: Any, fix: str
) -> None:
    with pytest.raises(BadValueError) as caught:
        make_recipe(**{section: value})
    assert caught.value.fix() == fix


FIXES = {
    "a whole number": ("base: a\nfine_tune: {epochs: many}", "write epochs: 10"),
    "text without a default": ("base: {model: [3]}", "write model: resnet18"),
    "a name with a slash": ("base: a\nname: a/b", "write name: a_b"),
    "no base": ("freeze: a", "add base: {model: resnet18}"),
    "no width": (
        "base: a\nadd: {x: {layer: linear, inputs: y}}", "add out: classes to add.x"
    ),
    "no kind of layer": ("base: a\nadd: {x: {inputs: y}}", "add layer: linear to add.x"),
    "no step": (
        "base: a\nfine_tune: {schedule: {name: step}}", "add every: 2 to fine_tune.schedule"
    ),
    "no steps": (
        "base: a\nfine_tune: {schedule: {name: multistep}}",
        "add at: [2, 4] to fine_tune.schedule",
    ),
    "a rate of an optimizer": ("base: a\nfine_tune: {optimizer: {rate: 1}}", "write lr"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIXES)
def test_a_fix_can_be_pasted(tmp_path: Path, case: str) -> None:
    text, fix = FIXES[case]
    (error,) = refused(tmp_path, text)
    assert error.fix() == fix
    assert "should match" not in str(error)


def test_views_without_augmentation_are_told_at_their_line(tmp_path: Path) -> None:
    (error,) = refused(tmp_path, "base: a\ndata: x\nfeatures:\n  views: 4")
    assert str(error.where).endswith("r.yaml:4:10")
    assert "keys that go together" not in str(error)
