"""Every recipe of the repository: found recursively, counted, headed, and proved without weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tlcompile.compiler import PLACEHOLDER_CLASSES, prove_recipe
from tlcompile.durable.generations import commit_folder
from tlcompile.errors.finding import UnknownRunError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.scalars import to_yaml
from tlcompile.run.folder import resolved, run_folder, tensor_lines
from tlcompile.run.splits import known_classes
from tlcompile.zoo.open import open_base

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.y*ml"))

TRAINABLE = {  # parameters that learn, counted by hand from the layers' widths
    "ants_bees": 512 * 2 + 2,
    "ants_bees_progressive": 512 * 2 + 2,  # its first phase
    "ants_bees_resnet18": 512 * 2 + 2,
    "ants_bees_resnet18_finetune": 11_176_512 + 512 * 2 + 2,
    "cats_dogs": 512 * 7 * 7 * 256 + 256 + 256 + 1,
    "digits": (32 * 64 * 9 + 64) + (64 * 128 * 9 + 128) + (128 * 5 + 5),
    "digits_base": 101_925 + 640,
    "digits_progressive": 128 * 5 + 5,  # its first phase
    "flowers_bottleneck": (25088 * 4096 + 4096)
    + (4096 * 1024 + 1024)
    + (1024 * 256 + 256)
    + (256 * 5 + 5),
    "flowers_last_layer": 4096 * 5 + 5,
    "progressive": 512 * 2 + 2,  # its first phase
}
STARTS_FROM_A_RUN = {  # and of which recipe that run has to be
    "flowers_thaw_block5": "flowers_bottleneck",
}
AFTER_FC1 = (4096 * 1024 + 1024) + (1024 * 256 + 256) + (256 * 5 + 5)
THAWED = {"flowers_thaw_block5": 3 * (512 * 512 * 9 + 512) + (25088 * 4096 + 4096) + AFTER_FC1}


def test_every_recipe_is_looked_at() -> None:
    assert len(RECIPES) == 12
    assert {path.stem for path in RECIPES} == TRAINABLE.keys() | THAWED.keys()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_opens_with_what_why_command_and_expected_score(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    schema = lines[0].removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / schema).resolve() == ROOT / "schemas" / "recipe.schema.json"
    head = "\n".join(line for line in lines if line.startswith("#"))
    for word in ("# What: ", "# Why: ", "tlcompile train ", "# Expected: "):
        assert word in head
    assert f"recipes/{path.name}" in head


@pytest.mark.parametrize("name", sorted(TRAINABLE))
def test_recipe_is_proved_without_weights_or_data(name: str, update_goldens: bool) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert recipe.name == name
    model = prove_recipe(recipe, num_classes=known_classes(recipe) or PLACEHOLDER_CLASSES)
    assert sum(p.numel() for _, p in model.trainable()) == TRAINABLE[name]
    assert all(p.is_meta for p in model.parameters())
    check_tensors(name, model, update_goldens)


def check_tensors(name: str, model: CompiledModel, update: bool) -> None:
    """Compare the tensor report, as a run saves it, with tests/goldens/recipes/<name>.csv."""
    golden = ROOT / "tests" / "goldens" / "recipes" / f"{name}.csv"
    report = re.sub(r"(runs/\w+)-[0-9a-f]{8}", r"\1-<8 hex>", tensor_lines(model.tensors()))
    if update:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(report, encoding="utf-8")
    assert report == golden.read_text(encoding="utf-8")


def test_in_its_last_phase_the_progressive_recipe_trains_everything() -> None:
    phases = load_recipe(ROOT / "recipes" / "progressive.yaml").phases()
    trained = [sum(p.numel() for _, p in prove_recipe(one).trainable()) for one in phases]
    layer4 = 8_393_728
    assert trained == [1026, layer4 + 1026, 11_176_512 + 1026]


@pytest.mark.parametrize("name", sorted(STARTS_FROM_A_RUN))
def test_recipe_that_starts_from_a_run_is_proved_without_its_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_goldens: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = ROOT / "recipes" / f"{name}.yaml"
    with pytest.raises(UnknownRunError, match=rf"{name}\.yaml:7:"):
        load_recipe(path)
    before = load_recipe(ROOT / "recipes" / f"{STARTS_FROM_A_RUN[name]}.yaml")
    opened = open_base(before, load=False)
    record = {
        "base": {"model": opened.name, "weights": opened.weights},
        "classes": ["daisy", "dandelion", "roses", "sunflowers", "tulips"],
        "preprocessing": opened.preprocessing.to_dict(),
        "task": before.task,
        "chunk_size": before.features.batch_size,
    }
    files = {"recipe.yaml": to_yaml(resolved(before)), "record.json": json.dumps(record)}
    empty = dict.fromkeys(("model.safetensors", "golden.safetensors"), b"")
    contents = {name: text.encode() for name, text in files.items()} | empty
    commit_folder(run_folder(before) / "bundle", contents)
    recipe = load_recipe(path)
    assert (recipe.data, recipe.fine_tune.seed) == (before.data, before.fine_tune.seed)
    model = prove_recipe(recipe)
    assert sum(p.numel() for _, p in model.trainable()) == THAWED[name]
    check_tensors(name, model, update_goldens)
