"""A model of the zoo, edited, saved as a run and opened as a base: the same to the bit, unedited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_recipe
from torch import Tensor

from tlcompile.bundle import load_bundle, save_bundle
from tlcompile.compiler import compile_opened, compile_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import resolved
from tlcompile.run.record import base_record
from tlcompile.zoo.open import open_base

# Each has something that a second trace of the edited model would lose or change.
EDITS: dict[str, dict[str, Any]] = {
    "squeezenet1_0": {},  # `head: auto` drops the last ReLU
    "mobilenet_v3_small": {"remove": {"features.5": "bypass"}},  # a function vertex goes
    "googlenet": {"head": "keep"},  # auxiliary heads that exist in train mode only
    "densenet121": {  # a function vertex between two kept ones
        "add": {"twice": {"layer": "scale", "by": 2.0, "inputs": "features.pool0"}},
    },
    "swin_t": {},  # buffers and parameters read by functions
    "vit_b_16": {},  # integers that belong to the batch
    "resnet18": {"resize": {"layer1.0.conv1": {"out": 48}}},
}
EDITS["densenet121"]["add"]["twice"]["feeds"] = ["features.denseblock1.denselayer1.cat"]
FAST = ("squeezenet1_0", "resnet18")


def shake(model: CompiledModel) -> None:
    """Make every tensor one that no initialiser would make."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += torch.rand(tensor.shape, generator=generator) * 0.01


def save_run(folder: Path, recipe: Recipe) -> CompiledModel:
    """Compile a recipe, give it other weights, and save it as a run does."""
    opened = open_base(recipe)
    base = base_record(opened)
    model = compile_opened(recipe, opened, 5)
    shake(model)
    record = {
        "base": base,
        "ancestry": opened.run.as_ancestor() if opened.run else [],
        "classes": ["a", "b", "c", "d", "e"],
        "preprocessing": opened.preprocessing.to_dict(),
        "task": recipe.task,
        "chunk_size": recipe.features.batch_size,
    }
    save_bundle(folder / "bundle", model, resolved(recipe), record)
    return model


def computed(model: CompiledModel, *, training: bool) -> list[Tensor]:
    shape = next(iter(model.summary.sample_shapes.values()))
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    with torch.no_grad():
        found = model.train(training)(images)
    return [found] if isinstance(found, Tensor) else [f for f in found if f is not None]


def recipe_of(name: str) -> Recipe:
    base = {"model": name, "weights": "none", "size": 64 if name != "vit_b_16" else 224}
    return make_recipe(
        base=base, freeze={"upto": "none"}, data={"dataset": "digits"}, **EDITS[name]
    )


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in EDITS]
)
def test_a_run_as_a_base_is_the_run(tmp_path: Path, name: str) -> None:
    first = save_run(tmp_path / "first", recipe_of(name))
    again = make_recipe(base={"run": str(tmp_path / "first")}, freeze={"upto": "none"})
    second = save_run(tmp_path / "second", again)  # shaken: other weights than the first
    third = compile_recipe(make_recipe(base={"run": str(tmp_path / "second")}, freeze="stage1"))
    assert list(third.state_dict()) == list(first.state_dict())
    assert third.summary.outputs == first.summary.outputs
    names = [[row.name for row in model.summary.vertices] for model in (first, third)]
    assert names[0] == names[1]
    loaded = load_bundle(tmp_path / "second").model
    outputs = [computed(model, training=False) for model in (second, loaded, third)]
    assert all(map(torch.equal, outputs[0], outputs[1]))
    assert all(map(torch.equal, outputs[0], outputs[2]))
    ours, theirs = (computed(model, training=True) for model in (second, loaded))
    assert all(map(torch.equal, ours, theirs)), "after this, statistics have moved"


def test_the_zoo_is_looked_at() -> None:
    assert len(EDITS) == 7
    assert set(FAST) < EDITS.keys()
