"""torchvision's detectors: the same tensors and names, the backbone as vertices, equal detections."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from graph.tiny import recipe
from torch import nn
from torchvision.models import get_model

from tlcompile.compiler import compile_opened, prove_recipe
from tlcompile.errors.graph import InsideLeafError
from tlcompile.zoo.base import base_from_module
from tlcompile.zoo.detection import Detector
from tlcompile.zoo.torchvision import DETECTION, open_torchvision

QUICK = "fasterrcnn_mobilenet_v3_large_320_fpn"
EVERY = [n if n == QUICK else pytest.param(n, marks=pytest.mark.slow) for n in DETECTION]


def plain(name: str) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        return get_model(name, weights=None, weights_backbone=None, num_classes=4).eval()


def point_of(name: str) -> str:
    """A freeze point inside the backbone."""
    if name.startswith("ssd"):
        return "backbone.features.0"
    return "backbone.body.6" if "mobilenet" in name else "backbone.body.layer2"


def sections(point: str) -> Any:
    return recipe(base={"model": "own", "size": 96}, head="keep", freeze={"upto": [point]})


@pytest.mark.parametrize("name", EVERY)
def test_detections_are_the_originals(name: str) -> None:
    model, x = plain(name), torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        theirs = model([*x])
        opened = base_from_module(Detector(model), 96)
        ours = compile_opened(sections(point_of(name)), opened, None).eval()
        names = list(ours.state_dict())
        found, halves = ours(x), ours.suffix(*ours.prefix(x))
    assert names == list(model.state_dict())
    assert theirs
    assert ours.boundary
    for one, other, half in zip(theirs, found, halves, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert all(torch.equal(one[key], half[key]) for key in one)


@pytest.mark.parametrize("name", EVERY)
def test_a_detector_is_proved_without_weights(name: str) -> None:
    wanted = recipe(base={"model": name}, head="keep", freeze={"upto": [point_of(name)]})
    model = prove_recipe(wanted)
    shapes = {row.name: row.shape for row in model.summary.vertices}
    assert shapes["detections"] == "depends on the data"
    assert any("Detections cannot be traced" in note for note in model.summary.notes)
    assert {"x", *(n for n in shapes if n.startswith("backbone"))} >= {
        boundary.vertex for boundary in model.boundary
    }


def test_a_recipe_that_points_inside_a_leaf_is_refused() -> None:
    with pytest.raises(InsideLeafError, match=r"rpn\.head"):
        prove_recipe(recipe(base={"model": QUICK}, head="keep", freeze={"upto": ["rpn.head"]}))


def test_frozen_proposals_are_computed_in_every_step() -> None:
    x, opened = torch.rand(2, 3, 96, 96), base_from_module(Detector(plain(QUICK)), 96)
    model = compile_opened(sections("rpn"), opened, None).eval()
    assert {"x", "backbone.fpn.layer_blocks.0.0"} <= {b.vertex for b in model.boundary}
    assert "what 'rpn' computes depends on the data" in model.summary.notes[-1]
    with torch.no_grad():
        found, halves = model(x), model.suffix(*model.prefix(x))
    assert all(torch.equal(a[k], b[k]) for a, b in zip(found, halves, strict=True) for k in a)
    model.train()
    assert not model.rpn.training
    assert model.roi_heads.training


def test_the_size_is_the_transforms() -> None:
    assert open_torchvision(QUICK, "default", None, load=False).sample_shape == (3, 320, 320)
