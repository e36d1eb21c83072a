"""Every classifier and segmentation model of torchvision: no edits change nothing, stages compile."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from graph.tiny import recipe

from parity.plain import (
    SEGMENTATION,
    differences,
    evaluated,
    images,
    plain_model,
    side_of,
    stepped,
)
from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.edits import HeadError
from tlcompile.graph.model_graph import graph_of
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.stages import find_stages
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.torchvision import model_names, open_torchvision

NO_GRADIENTS = 700e6  # bytes of weights above which two sets of gradients do not fit beside them


def test_the_zoo_is_what_it_was() -> None:
    assert len(model_names()) == 86
    assert len(SEGMENTATION) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_compiled_without_edits_is_the_original(name: str) -> None:
    model, x = plain_model(name), images(name)
    plain = recipe(base={"model": name, "size": side_of(name)}, head="keep", freeze="none")
    compiled = compile_recipe(plain, base=model)
    assert list(compiled.state_dict()) == list(model.state_dict())
    for ours, theirs in zip(evaluated(compiled, x), evaluated(model, x), strict=True):
        assert torch.equal(ours, theirs)
    small = sum(p.numel() * 4 for p in model.parameters()) < NO_GRADIENTS
    theirs = stepped(model, x, backward=small)
    itself = differences(theirs, stepped(_restored(model, compiled), x, backward=small))
    ours = differences(stepped(compiled, x, backward=small), theirs)
    assert set(ours) <= set(itself)
    gc.collect()


def _restored(model: torch.nn.Module, compiled: torch.nn.Module) -> torch.nn.Module:
    """Return the original again, with the buffers that it had before its step."""
    again = copy.deepcopy(model)
    again.zero_grad()
    again.load_state_dict(compiled.state_dict())
    return again


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_each_stage_compiles_with_a_new_head(name: str) -> None:
    opened = open_torchvision(name, "default", None, load=False)
    model_graph = graph_of(opened.module, name, {"x": opened.sample_shape})
    record_shapes(model_graph)
    stages = find_stages(model_graph)
    assert stages or name in SEGMENTATION
    ambiguous = name.startswith("shufflenet")
    for stage in ("head", *stages):
        point = {"stage": int(stage[-1])} if ambiguous and stage != "head" else stage
        wanted = Recipe.model_validate({"base": {"model": name}, "freeze": {"upto": [point]}})
        if name in SEGMENTATION:
            with pytest.raises(HeadError):
                prove_recipe(wanted, num_classes=7)
            continue
        compiled = prove_recipe(wanted, num_classes=7)
        assert len(compiled.boundary) == 1, stage
        assert compiled.summary.vertices[-1].shape == "(N, 7)"
    gc.collect()
