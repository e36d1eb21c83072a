"""Stages: the strides 4, 8, 16, 32 of every family, at the size that the base was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph.tiny import recipe
from tlcompile.compiler import prove_recipe
from tlcompile.errors.graph import UnknownStageError
from tlcompile.graph.model_graph import ModelGraph, graph_of_base
from tlcompile.graph.names import name_of
from tlcompile.graph.shapes import VALUES, record_shapes
from tlcompile.graph.stages import find_stages
from tlcompile.zoo.torchvision import DETECTION, model_names, open_torchvision

GOLDEN = Path(__file__).parents[1] / "goldens" / "stages.txt"  # read against spec/graph.md e
ROWS = dict(line.split(": ", 1) for line in GOLDEN.read_text().splitlines()[1:])
SAMPLE = ("resnet18", "squeezenet1_0", "vit_b_16", "swin_t", "fcn_resnet50", "r3d_18")


def graph(name: str, size: int | None = None) -> ModelGraph:
    model_graph = graph_of_base(open_torchvision(name, "default", size, load=False))
    record_shapes(model_graph)
    return model_graph


def names(model_graph: ModelGraph) -> str:
    found = {stage: name_of(node) for stage, node in find_stages(model_graph).items()}
    return " ".join(found.get(f"stage{number}", "-") for number in (1, 2, 3, 4))


def test_the_table_has_every_model_that_reads_one_tensor() -> None:
    assert list(ROWS) == [name for name in model_names() if name not in DETECTION]
    assert len(ROWS) == 95


@pytest.mark.parametrize(
    "name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in ROWS]
)
def test_stages_are_those_of_the_table(name: str) -> None:
    assert names(graph(name)) == ROWS[name]


@pytest.mark.parametrize(
    ("name", "size"), [("squeezenet1_0", 48), ("alexnet", 72), ("alexnet", 320), ("resnet18", 32)]
)
def test_stages_do_not_depend_on_the_size_of_the_images(name: str, size: int) -> None:
    model_graph = graph(name, size)
    before = {node: node.meta[VALUES] for node in model_graph.vertices()}
    assert names(model_graph) == ROWS[name]
    assert before == {node: node.meta[VALUES] for node in model_graph.vertices()}
    assert model_graph.sample_shapes == {"x": (3, size, size)}


def test_a_recipe_with_small_images_freezes_the_same_vertex() -> None:
    small = recipe(base={"model": "squeezenet1_0", "size": 48}, freeze={"upto": ["stage3"]})
    native = recipe(base={"model": "squeezenet1_0"}, freeze={"upto": ["stage3"]})
    vertices = [prove_recipe(one, num_classes=3).boundary[0].vertex for one in (small, native)]
    assert vertices == ["features.12.cat"] * 2


def test_a_stage_that_a_model_does_not_have_is_refused() -> None:
    wanted = recipe(base={"model": "squeezenet1_0"}, freeze={"upto": ["stage4"]})
    with pytest.raises(UnknownStageError, match="stage1, stage2, stage3"):
        prove_recipe(wanted, num_classes=3)
